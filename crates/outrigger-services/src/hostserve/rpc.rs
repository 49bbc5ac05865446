//! `hostserve.v1` as the generated server wants it: one row per call.

use outrigger_manifest::HostService as Granted;
use outrigger_wire::proto::hostserve::*;
use tonic::{Request, Response, Status, Streaming};

use super::{HostServe, files, host, streams};
use crate::proto::hostserve::host_service_server::HostService;
use crate::work::{Replies, Work};

macro_rules! service {
    ($($service:ident $method:ident: $name:literal, $request:ident -> $response:ident, $work:expr;)*) => {
        #[tonic::async_trait]
        impl HostService for HostServe {
            $(
                async fn $method(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    self.call(Granted::$service, $name, request, $work).await
                }
            )*

            type FileReaderStream = Replies<FileReadResponse>;

            async fn file_reader(
                &self,
                request: Request<FileReadRequest>,
            ) -> Result<Response<Self::FileReaderStream>, Status> {
                streams::read(&self.0, request)
            }

            type FileReaderAtStream = Replies<FileReadAtResponse>;

            async fn file_reader_at(
                &self,
                request: Request<FileReadAtRequest>,
            ) -> Result<Response<Self::FileReaderAtStream>, Status> {
                streams::read(&self.0, request)
            }

            async fn file_writer(
                &self,
                request: Request<Streaming<FileWriteRequest>>,
            ) -> Result<Response<FileWriteResponse>, Status> {
                streams::write(&self.0, request).await
            }

            async fn file_writer_at(
                &self,
                request: Request<Streaming<FileWriteAtRequest>>,
            ) -> Result<Response<FileWriteAtResponse>, Status> {
                streams::write(&self.0, request).await
            }
        }
    };
}

service! {
    Filesystem read_dir: "ReadDir", ReadDirRequest -> ReadDirResponse, Work::Blocking(files::read_dir);
    Filesystem read_file: "ReadFile", ReadFileRequest -> ReadFileResponse,
        Work::Try(files::read_file_now, files::read_file);
    Filesystem write_file: "WriteFile", WriteFileRequest -> WriteFileResponse,
        Work::Blocking(files::write_file);
    Filesystem stat: "Stat", StatRequest -> StatResponse, Work::Try(files::stat_now, files::stat);
    Filesystem lstat: "Lstat", LstatRequest -> LstatResponse, Work::Blocking(files::lstat);
    Filesystem rename: "Rename", RenameRequest -> RenameResponse, Work::Blocking(files::rename);
    Filesystem remove: "Remove", RemoveRequest -> RemoveResponse, Work::Blocking(files::remove);
    Filesystem remove_all: "RemoveAll", RemoveAllRequest -> RemoveAllResponse,
        Work::Blocking(files::remove_all);
    Filesystem mkdir: "Mkdir", MkdirRequest -> MkdirResponse, Work::Blocking(files::mkdir);
    Filesystem mkdir_all: "MkdirAll", MkdirAllRequest -> MkdirAllResponse, Work::Blocking(files::mkdir_all);
    Filesystem mkdir_temp: "MkdirTemp", MkdirTempRequest -> MkdirTempResponse,
        Work::Blocking(files::mkdir_temp);
    Filesystem chmod: "Chmod", ChmodRequest -> ChmodResponse, Work::Blocking(files::chmod);
    Filesystem chown: "Chown", ChownRequest -> ChownResponse, Work::Blocking(files::chown);
    Filesystem lchown: "Lchown", LchownRequest -> LchownResponse, Work::Blocking(files::lchown);
    Filesystem chtimes: "Chtimes", ChtimesRequest -> ChtimesResponse, Work::Blocking(files::chtimes);
    Filesystem readlink: "Readlink", ReadlinkRequest -> ReadlinkResponse, Work::Blocking(files::readlink);
    Filesystem link: "Link", LinkRequest -> LinkResponse, Work::Blocking(files::link);
    Filesystem symlink: "Symlink", SymlinkRequest -> SymlinkResponse, Work::Blocking(files::symlink);
    Filesystem file_create: "FileCreate", FileCreateRequest -> FileCreateResponse,
        Work::Blocking(files::file_create);
    Filesystem file_create_temp: "FileCreateTemp", FileCreateTempRequest -> FileCreateTempResponse,
        Work::Blocking(files::file_create_temp);
    Filesystem file_open: "FileOpen", FileOpenRequest -> FileOpenResponse,
        Work::Try(files::file_open_now, files::file_open);
    Filesystem file_stat: "FileStat", FileStatRequest -> FileStatResponse, Work::Blocking(files::file_stat);
    Filesystem file_seek: "FileSeek", FileSeekRequest -> FileSeekResponse, Work::Blocking(files::file_seek);
    Filesystem file_sync: "FileSync", FileSyncRequest -> FileSyncResponse, Work::Blocking(files::file_sync);
    Filesystem file_close: "FileClose", FileCloseRequest -> FileCloseResponse,
        Work::Try(files::file_close_now, files::file_close);
    Filesystem file_truncate: "FileTruncate", FileTruncateRequest -> FileTruncateResponse,
        Work::Blocking(files::file_truncate);
    Filesystem file_chmod: "FileChmod", FileChmodRequest -> FileChmodResponse,
        Work::Blocking(files::file_chmod);
    Filesystem file_chown: "FileChown", FileChownRequest -> FileChownResponse,
        Work::Blocking(files::file_chown);
    Filesystem file_read_section: "FileReadSection", FileReadSectionRequest -> FileReadSectionResponse,
        Work::Try(files::file_read_section_now, files::file_read_section);
    Filesystem file_write_section: "FileWriteSection", FileWriteSectionRequest -> FileWriteSectionResponse,
        Work::Blocking(files::file_write_section);
    Environment getuid: "Getuid", GetuidRequest -> GetuidResponse, Work::Now(host::getuid);
    Environment getgid: "Getgid", GetgidRequest -> GetgidResponse, Work::Now(host::getgid);
    Environment geteuid: "Geteuid", GeteuidRequest -> GeteuidResponse, Work::Now(host::geteuid);
    Environment getegid: "Getegid", GetegidRequest -> GetegidResponse, Work::Now(host::getegid);
    Environment getpid: "Getpid", GetpidRequest -> GetpidResponse, Work::Now(host::getpid);
    Environment getppid: "Getppid", GetppidRequest -> GetppidResponse, Work::Now(host::getppid);
    Environment get_groups: "GetGroups", GetGroupsRequest -> GetGroupsResponse, Work::Now(host::get_groups);
    Environment get_env: "GetEnv", GetEnvRequest -> GetEnvResponse, Work::Now(host::get_env);
    Filesystem temp_dir: "TempDir", TempDirRequest -> TempDirResponse,
        Work::Try(host::temp_dir_now, host::temp_dir);
    Environment user_cache_dir: "UserCacheDir", UserCacheDirRequest -> UserCacheDirResponse,
        Work::Now(host::user_cache_dir);
    Environment user_config_dir: "UserConfigDir", UserConfigDirRequest -> UserConfigDirResponse,
        Work::Now(host::user_config_dir);
    Environment user_home_dir: "UserHomeDir", UserHomeDirRequest -> UserHomeDirResponse,
        Work::Now(host::user_home_dir);
}

//! `hostserve.v1` as the generated server wants it: one row per call.

use std::sync::Arc;

use outrigger_wire::proto::hostserve::*;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::hostserve::host_service_server::HostService;
use crate::session::{Session, Work};
use crate::streams::{self, Replies};
use crate::{files, handles, host};

/// The services of one plugin connection.
#[derive(Clone)]
pub(crate) struct Bound(pub(crate) Arc<Session>);

macro_rules! service {
    ($($method:ident: $name:literal, $request:ident -> $response:ident, $work:expr;)*) => {
        #[tonic::async_trait]
        impl HostService for Bound {
            $(
                async fn $method(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    self.0.call($name, request, $work).await
                }
            )*

            type FileReaderStream = Replies<FileReadResponse>;

            async fn file_reader(
                &self,
                request: Request<FileReadRequest>,
            ) -> Result<Response<Self::FileReaderStream>, Status> {
                Ok(streams::read(&self.0, request))
            }

            type FileReaderAtStream = Replies<FileReadAtResponse>;

            async fn file_reader_at(
                &self,
                request: Request<FileReadAtRequest>,
            ) -> Result<Response<Self::FileReaderAtStream>, Status> {
                Ok(streams::read(&self.0, request))
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
    read_dir: "ReadDir", ReadDirRequest -> ReadDirResponse, Work::Blocking(files::read_dir);
    read_file: "ReadFile", ReadFileRequest -> ReadFileResponse,
        Work::Try(files::read_file_now, files::read_file);
    write_file: "WriteFile", WriteFileRequest -> WriteFileResponse,
        Work::Blocking(files::write_file);
    stat: "Stat", StatRequest -> StatResponse, Work::Try(files::stat_now, files::stat);
    lstat: "Lstat", LstatRequest -> LstatResponse, Work::Blocking(files::lstat);
    rename: "Rename", RenameRequest -> RenameResponse, Work::Blocking(files::rename);
    remove: "Remove", RemoveRequest -> RemoveResponse, Work::Blocking(files::remove);
    remove_all: "RemoveAll", RemoveAllRequest -> RemoveAllResponse,
        Work::Blocking(files::remove_all);
    mkdir: "Mkdir", MkdirRequest -> MkdirResponse, Work::Blocking(files::mkdir);
    mkdir_all: "MkdirAll", MkdirAllRequest -> MkdirAllResponse, Work::Blocking(files::mkdir_all);
    mkdir_temp: "MkdirTemp", MkdirTempRequest -> MkdirTempResponse,
        Work::Blocking(files::mkdir_temp);
    chmod: "Chmod", ChmodRequest -> ChmodResponse, Work::Blocking(files::chmod);
    chown: "Chown", ChownRequest -> ChownResponse, Work::Blocking(files::chown);
    lchown: "Lchown", LchownRequest -> LchownResponse, Work::Blocking(files::lchown);
    chtimes: "Chtimes", ChtimesRequest -> ChtimesResponse, Work::Blocking(files::chtimes);
    readlink: "Readlink", ReadlinkRequest -> ReadlinkResponse, Work::Blocking(files::readlink);
    link: "Link", LinkRequest -> LinkResponse, Work::Blocking(files::link);
    symlink: "Symlink", SymlinkRequest -> SymlinkResponse, Work::Blocking(files::symlink);
    file_create: "FileCreate", FileCreateRequest -> FileCreateResponse,
        Work::Blocking(handles::create);
    file_create_temp: "FileCreateTemp", FileCreateTempRequest -> FileCreateTempResponse,
        Work::Blocking(handles::create_temp);
    file_open: "FileOpen", FileOpenRequest -> FileOpenResponse,
        Work::Try(handles::open_now, handles::open);
    file_stat: "FileStat", FileStatRequest -> FileStatResponse, Work::Blocking(handles::stat);
    file_seek: "FileSeek", FileSeekRequest -> FileSeekResponse, Work::Blocking(handles::seek);
    file_sync: "FileSync", FileSyncRequest -> FileSyncResponse, Work::Blocking(handles::sync);
    file_close: "FileClose", FileCloseRequest -> FileCloseResponse,
        Work::Try(handles::close_now, handles::close);
    file_truncate: "FileTruncate", FileTruncateRequest -> FileTruncateResponse,
        Work::Blocking(handles::truncate);
    file_chmod: "FileChmod", FileChmodRequest -> FileChmodResponse,
        Work::Blocking(handles::chmod);
    file_chown: "FileChown", FileChownRequest -> FileChownResponse,
        Work::Blocking(handles::chown);
    file_read_section: "FileReadSection", FileReadSectionRequest -> FileReadSectionResponse,
        Work::Try(handles::read_section_now, handles::read_section);
    file_write_section: "FileWriteSection", FileWriteSectionRequest -> FileWriteSectionResponse,
        Work::Blocking(handles::write_section);
    getuid: "Getuid", GetuidRequest -> GetuidResponse, Work::Now(host::getuid);
    getgid: "Getgid", GetgidRequest -> GetgidResponse, Work::Now(host::getgid);
    geteuid: "Geteuid", GeteuidRequest -> GeteuidResponse, Work::Now(host::geteuid);
    getegid: "Getegid", GetegidRequest -> GetegidResponse, Work::Now(host::getegid);
    getpid: "Getpid", GetpidRequest -> GetpidResponse, Work::Now(host::getpid);
    getppid: "Getppid", GetppidRequest -> GetppidResponse, Work::Now(host::getppid);
    get_groups: "GetGroups", GetGroupsRequest -> GetGroupsResponse, Work::Now(host::get_groups);
    get_env: "GetEnv", GetEnvRequest -> GetEnvResponse, Work::Now(host::get_env);
    temp_dir: "TempDir", TempDirRequest -> TempDirResponse,
        Work::Try(host::temp_dir_now, host::temp_dir);
    user_cache_dir: "UserCacheDir", UserCacheDirRequest -> UserCacheDirResponse,
        Work::Now(host::user_cache_dir);
    user_config_dir: "UserConfigDir", UserConfigDirRequest -> UserConfigDirResponse,
        Work::Now(host::user_config_dir);
    user_home_dir: "UserHomeDir", UserHomeDirRequest -> UserHomeDirResponse,
        Work::Now(host::user_home_dir);
}

//! `hostserve.v1` as the generated server wants it: one row per call.

use std::sync::Arc;

use outrigger_wire::proto::hostserve::*;
use tonic::{Request, Response, Status, Streaming};

use super::failed::failed;
use super::operations::{Reply, Subject};
use super::streams;
use crate::fs::call::SessionFiles;
use crate::fs::operation::{self, FileOperation};
use crate::proto::hostserve::host_service_server::HostService;
use crate::running::Caller;
use crate::streaming::Replies;

/// The service of one connection.
pub(crate) struct HostServe(Arc<SessionFiles>);

impl HostServe {
    pub(crate) fn new(files: Arc<SessionFiles>) -> Self {
        Self(files)
    }

    async fn run<Q>(&self, request: Request<Q>) -> Result<Response<Q::Reply>, Status>
    where
        Q: FileOperation + Subject,
        Q::Reply: Reply,
    {
        let (caller, message) = Caller::of(request);
        // The work takes the message with it.
        let subject = message.subject().to_owned();
        match operation::run(&self.0, &caller, message).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(fault) => failed(Q::OPERATION.name, &subject, &fault).map(Response::new),
        }
    }
}

macro_rules! calls {
    ($($method:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl HostService for HostServe {
            $(
                async fn $method(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    self.run(request).await
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

calls! {
    read_dir: ReadDirRequest -> ReadDirResponse;
    read_file: ReadFileRequest -> ReadFileResponse;
    write_file: WriteFileRequest -> WriteFileResponse;
    stat: StatRequest -> StatResponse;
    lstat: LstatRequest -> LstatResponse;
    rename: RenameRequest -> RenameResponse;
    remove: RemoveRequest -> RemoveResponse;
    remove_all: RemoveAllRequest -> RemoveAllResponse;
    mkdir: MkdirRequest -> MkdirResponse;
    mkdir_all: MkdirAllRequest -> MkdirAllResponse;
    mkdir_temp: MkdirTempRequest -> MkdirTempResponse;
    chmod: ChmodRequest -> ChmodResponse;
    chown: ChownRequest -> ChownResponse;
    lchown: LchownRequest -> LchownResponse;
    chtimes: ChtimesRequest -> ChtimesResponse;
    readlink: ReadlinkRequest -> ReadlinkResponse;
    link: LinkRequest -> LinkResponse;
    symlink: SymlinkRequest -> SymlinkResponse;
    file_create: FileCreateRequest -> FileCreateResponse;
    file_create_temp: FileCreateTempRequest -> FileCreateTempResponse;
    file_open: FileOpenRequest -> FileOpenResponse;
    file_stat: FileStatRequest -> FileStatResponse;
    file_seek: FileSeekRequest -> FileSeekResponse;
    file_sync: FileSyncRequest -> FileSyncResponse;
    file_close: FileCloseRequest -> FileCloseResponse;
    file_truncate: FileTruncateRequest -> FileTruncateResponse;
    file_chmod: FileChmodRequest -> FileChmodResponse;
    file_chown: FileChownRequest -> FileChownResponse;
    file_read_section: FileReadSectionRequest -> FileReadSectionResponse;
    file_write_section: FileWriteSectionRequest -> FileWriteSectionResponse;
    getuid: GetuidRequest -> GetuidResponse;
    getgid: GetgidRequest -> GetgidResponse;
    geteuid: GeteuidRequest -> GeteuidResponse;
    getegid: GetegidRequest -> GetegidResponse;
    getpid: GetpidRequest -> GetpidResponse;
    getppid: GetppidRequest -> GetppidResponse;
    get_groups: GetGroupsRequest -> GetGroupsResponse;
    get_env: GetEnvRequest -> GetEnvResponse;
    temp_dir: TempDirRequest -> TempDirResponse;
    user_cache_dir: UserCacheDirRequest -> UserCacheDirResponse;
    user_config_dir: UserConfigDirRequest -> UserConfigDirResponse;
    user_home_dir: UserHomeDirRequest -> UserHomeDirResponse;
}

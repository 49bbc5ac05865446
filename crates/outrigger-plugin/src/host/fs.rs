//! Files beneath what was granted.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::StreamExt;
use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use tonic::{Status, Streaming};

use super::file::{self, File, Lease};
use super::{Host, HostError, call};
use crate::proto::host::filesystem_client::FilesystemClient;

/// Files beneath what was granted. A path is absolute, or relative to the only
/// granted directory where there is exactly one.
#[derive(Clone, Debug)]
pub struct Fs(Host);

macro_rules! fs {
    ($host:expr, $method:ident, $request:expr) => {
        call!($host, FilesystemClient, "filesystem", $method, $request)
    };
}

impl Fs {
    pub(super) fn new(host: Host) -> Self {
        Self(host)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open(&self, path: impl Into<String>) -> Result<File, HostError> {
        self.options().read(true).open(path).await
    }

    /// Opens a file for writing: made if needed, emptied if there.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn create(&self, path: impl Into<String>) -> Result<File, HostError> {
        let options = self.options().write(true).create(true).truncate(true);
        options.open(path).await
    }

    /// Opens a file in another way.
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            host: self.0.clone(),
            options: messages::OpenOptions::default(),
        }
    }

    /// Opens a directory, from which files can be opened.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open_dir(&self, path: impl Into<String>) -> Result<Dir, HostError> {
        let request = messages::OpenDirRequest { path: path.into() };
        let id = fs!(self.0, open_dir, request)?.lease;
        let host = self.0.clone();
        Ok(Dir(Lease { host, id }))
    }

    /// A whole file, however large.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn read(&self, path: impl Into<String>) -> Result<Vec<u8>, HostError> {
        let mut contents = Vec::new();
        self.open(path).await?.read_to_end(&mut contents).await?;
        Ok(contents)
    }

    /// A whole file as text.
    ///
    /// # Errors
    /// It is not UTF-8, or see [`HostError`].
    pub async fn read_to_string(&self, path: impl Into<String>) -> Result<String, HostError> {
        let contents = self.read(path).await?;
        String::from_utf8(contents).map_err(|error| HostError::not_text("filesystem.read", error))
    }

    /// Writes a whole file: made if needed, replaced if there.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn write(
        &self,
        path: impl Into<String>,
        contents: impl AsRef<[u8]>,
    ) -> Result<(), HostError> {
        let contents = contents.as_ref();
        let path = path.into();
        if contents.len() <= self.0.payload() {
            let request = messages::WriteFileRequest {
                path,
                data: Bytes::copy_from_slice(contents),
                ..messages::WriteFileRequest::default()
            };
            fs!(self.0, write_file, request)?;
            return Ok(());
        }
        let mut file = self.create(path).await?;
        file.write(contents).await?;
        file.close().await
    }

    /// Writes at the end of a file, which is made if needed, and says how large
    /// it is then.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn append(
        &self,
        path: impl Into<String>,
        data: impl Into<Bytes>,
    ) -> Result<u64, HostError> {
        let request = messages::AppendRequest {
            path: path.into(),
            data: data.into(),
            mode: 0,
        };
        Ok(fs!(self.0, append, request)?.size)
    }

    /// Copies a file and says how large it is. What is at `to` is replaced.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn copy(
        &self,
        from: impl Into<String>,
        to: impl Into<String>,
    ) -> Result<u64, HostError> {
        let request = messages::CopyRequest {
            from: from.into(),
            to: to.into(),
            replace: true,
        };
        Ok(fs!(self.0, copy, request)?.copied)
    }

    /// What is at a path, following links.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn metadata(&self, path: impl Into<String>) -> Result<Metadata, HostError> {
        let request = messages::StatRequest { path: path.into() };
        let stat = fs!(self.0, stat, request)?;
        Ok(Metadata::new(stat.info.unwrap_or_default()))
    }

    /// What is at a path, a link standing for itself.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn symlink_metadata(&self, path: impl Into<String>) -> Result<Metadata, HostError> {
        let request = messages::LstatRequest { path: path.into() };
        let stat = fs!(self.0, lstat, request)?;
        Ok(Metadata::new(stat.info.unwrap_or_default()))
    }

    /// Whether something is at a path.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn exists(&self, path: impl Into<String>) -> Result<bool, HostError> {
        let request = messages::ExistsRequest { path: path.into() };
        Ok(fs!(self.0, exists, request)?.exists)
    }

    /// The entries of a directory, fetched page by page as they are taken.
    pub fn read_dir(&self, path: impl Into<String>) -> ReadDir {
        ReadDir {
            host: self.0.clone(),
            request: Some(messages::ListRequest {
                path: path.into(),
                ..messages::ListRequest::default()
            }),
            page: VecDeque::new(),
            unreadable: 0,
        }
    }

    /// The target of a link.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn read_link(&self, path: impl Into<String>) -> Result<PathBuf, HostError> {
        let request = messages::ReadlinkRequest { path: path.into() };
        Ok(fs!(self.0, readlink, request)?.target.into())
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn create_dir(&self, path: impl Into<String>) -> Result<(), HostError> {
        self.mkdir(path.into(), false).await
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn create_dir_all(&self, path: impl Into<String>) -> Result<(), HostError> {
        self.mkdir(path.into(), true).await
    }

    async fn mkdir(&self, path: String, parents: bool) -> Result<(), HostError> {
        let mode = 0;
        fs!(
            self.0,
            mkdir,
            messages::MkdirRequest {
                path,
                mode,
                parents
            }
        )?;
        Ok(())
    }

    /// Moves what is at `from` to `to`, replacing what is there.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn rename(
        &self,
        from: impl Into<String>,
        to: impl Into<String>,
    ) -> Result<(), HostError> {
        let request = messages::RenameRequest {
            from: from.into(),
            to: to.into(),
            replace: true,
        };
        fs!(self.0, rename, request)?;
        Ok(())
    }

    /// Removes a file, a link or an empty directory.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn remove(&self, path: impl Into<String>) -> Result<(), HostError> {
        fs!(
            self.0,
            remove,
            messages::RemoveRequest { path: path.into() }
        )?;
        Ok(())
    }

    /// Removes whatever is at a path, with all that is in it. Nothing there is
    /// fine too.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn remove_all(&self, path: impl Into<String>) -> Result<(), HostError> {
        fs!(
            self.0,
            remove_all,
            messages::RemoveAllRequest { path: path.into() }
        )?;
        Ok(())
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn hard_link(
        &self,
        existing: impl Into<String>,
        new: impl Into<String>,
    ) -> Result<(), HostError> {
        let (existing, new) = (existing.into(), new.into());
        fs!(self.0, link, messages::LinkRequest { existing, new })?;
        Ok(())
    }

    /// Makes a link at `new` that leads to `target`.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn symlink(
        &self,
        target: impl Into<String>,
        new: impl Into<String>,
    ) -> Result<(), HostError> {
        let (target, new) = (target.into(), new.into());
        fs!(self.0, symlink, messages::SymlinkRequest { target, new })?;
        Ok(())
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn set_permissions(
        &self,
        path: impl Into<String>,
        mode: u32,
    ) -> Result<(), HostError> {
        let path = path.into();
        fs!(self.0, chmod, messages::ChmodRequest { path, mode })?;
        Ok(())
    }

    /// Sets owner and group, where they are given.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn set_owner(
        &self,
        path: impl Into<String>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), HostError> {
        let request = messages::ChownRequest {
            path: path.into(),
            uid,
            gid,
            no_follow: false,
        };
        fs!(self.0, chown, request)?;
        Ok(())
    }

    /// Sets the times of the last access and change, where they are given.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn set_times(
        &self,
        path: impl Into<String>,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<(), HostError> {
        let request = messages::ChtimesRequest {
            path: path.into(),
            accessed: accessed.map(file::stamp),
            modified: modified.map(file::stamp),
        };
        fs!(self.0, chtimes, request)?;
        Ok(())
    }

    /// Cuts a file, or grows it with zeros.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn truncate(&self, path: impl Into<String>, size: u64) -> Result<(), HostError> {
        let request = messages::TruncateRequest {
            lease: String::new(),
            path: path.into(),
            size,
        };
        fs!(self.0, truncate, request)?;
        Ok(())
    }

    /// A new file to read and write, and its path; the host removes it when the
    /// plugin is gone. The last `*` of the pattern becomes random.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn temp_file(
        &self,
        pattern: impl Into<String>,
    ) -> Result<(File, PathBuf), HostError> {
        let pattern = pattern.into();
        if let Some(descriptors) = self.0.descriptors().filter(|_| !self.0.counts_writes()) {
            let pattern = pattern.clone();
            let request = Request::TempFile(messages::TempFileRequest { pattern });
            let operation = "filesystem.temp_file";
            if let Some((reply, mut taken)) = descriptors.ask(operation, request).await? {
                return match (reply, taken.pop(), taken.is_empty()) {
                    (Reply::TempFile(reply), Some(file), true) => {
                        let file = File::from_descriptor(file.into(), false);
                        Ok((file, reply.path.into()))
                    }
                    _ => Err(HostError::protocol(operation)),
                };
            }
        }
        let made = fs!(self.0, temp_file, messages::TempFileRequest { pattern })?;
        let file = File::from_lease(self.0.clone(), made.lease, false);
        Ok((file, made.path.into()))
    }

    /// A new directory, which the host removes when the plugin is gone.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn temp_dir(&self, pattern: impl Into<String>) -> Result<PathBuf, HostError> {
        let pattern = pattern.into();
        let made = fs!(self.0, temp_dir, messages::TempDirRequest { pattern })?;
        Ok(made.path.into())
    }

    /// Reports changes beneath a path from now on: when this returns, the host
    /// watches.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn watch(
        &self,
        path: impl Into<String>,
        recursive: bool,
    ) -> Result<Watch, HostError> {
        let path = path.into();
        let changes = fs!(self.0, watch, messages::WatchRequest { path, recursive })?;
        let mut watch = Watch(changes);
        match watch.message().await? {
            Some(first) if first.kind() == messages::ChangeKind::Ready => Ok(watch),
            _ => Err(HostError::protocol("filesystem.watch")),
        }
    }
}

/// How a file is opened.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct OpenOptions {
    host: Host,
    options: messages::OpenOptions,
}

macro_rules! option {
    ($($(#[$doc:meta])* $name:ident: $kind:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $kind) -> Self {
            self.options.$name = $name;
            self
        }
    )*};
}

impl OpenOptions {
    option! {
        /// To read.
        read: bool;
        /// To write.
        write: bool;
        /// To write at its end, whatever the position is.
        append: bool;
        /// Emptied.
        truncate: bool;
        /// Made when it is not there.
        create: bool;
        /// Made, and an error when it is there.
        create_new: bool;
        /// Unix permission bits of a file that is made; 0600 without.
        mode: u32;
    }

    /// Opens the file.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open(self, path: impl Into<String>) -> Result<File, HostError> {
        let (options, path) = (Some(self.options), path.into());
        let request = messages::OpenRequest { path, options };
        let operation = "filesystem.open";
        let by_descriptor = Request::Open(request.clone());
        if let Some(file) = self.by_descriptor(operation, by_descriptor).await? {
            return Ok(file);
        }
        let opened = fs!(self.host, open, request)?;
        Ok(File::from_lease(
            self.host,
            opened.lease,
            self.options.append,
        ))
    }

    /// Opens a file beneath a directory.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open_at(self, dir: &Dir, path: impl Into<String>) -> Result<File, HostError> {
        let request = messages::OpenAtRequest {
            lease: dir.0.id.clone(),
            path: path.into(),
            options: Some(self.options),
        };
        let operation = "filesystem.open_at";
        let by_descriptor = Request::OpenAt(request.clone());
        if let Some(file) = self.by_descriptor(operation, by_descriptor).await? {
            return Ok(file);
        }
        let opened = fs!(self.host, open_at, request)?;
        Ok(File::from_lease(
            self.host,
            opened.lease,
            self.options.append,
        ))
    }

    async fn by_descriptor(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<Option<File>, HostError> {
        let Some(descriptors) = self.host.descriptors() else {
            return Ok(None);
        };
        let writes = self.options.write || self.options.append;
        if writes && self.host.counts_writes() {
            return Ok(None);
        }
        let Some((reply, mut taken)) = descriptors.ask(operation, request).await? else {
            return Ok(None);
        };
        match (reply, taken.pop(), taken.is_empty()) {
            (Reply::Open(_), Some(file), true) => Ok(Some(File::from_descriptor(
                file.into(),
                self.options.append,
            ))),
            _ => Err(HostError::protocol(operation)),
        }
    }
}

/// An open directory: files are opened beneath it, whatever happens to its path.
#[derive(Debug)]
pub struct Dir(Lease);

impl Dir {
    /// Opens a file beneath it for reading.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open(&self, path: impl Into<String>) -> Result<File, HostError> {
        let options = Fs(self.0.host.clone()).options().read(true);
        options.open_at(self, path).await
    }
}

/// What something at a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

impl FileKind {
    fn from_wire(kind: messages::FileKind) -> Self {
        match kind {
            messages::FileKind::File => Self::File,
            messages::FileKind::Directory => Self::Directory,
            messages::FileKind::Symlink => Self::Symlink,
            messages::FileKind::Other | messages::FileKind::Unspecified => Self::Other,
        }
    }

    pub(super) fn to_wire(self) -> messages::FileKind {
        match self {
            Self::File => messages::FileKind::File,
            Self::Directory => messages::FileKind::Directory,
            Self::Symlink => messages::FileKind::Symlink,
            Self::Other => messages::FileKind::Other,
        }
    }
}

/// What is known about a file or directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata(messages::FileInfo);

impl Metadata {
    pub(super) fn new(info: messages::FileInfo) -> Self {
        Self(info)
    }

    /// What it is.
    pub fn kind(&self) -> FileKind {
        FileKind::from_wire(self.0.kind())
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == FileKind::File
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.0.size
    }

    /// Whether it has no contents.
    pub fn is_empty(&self) -> bool {
        self.0.size == 0
    }

    /// Its permission bits.
    pub fn mode(&self) -> u32 {
        self.0.mode
    }

    /// When its contents changed last.
    pub fn modified(&self) -> Option<SystemTime> {
        file::time(self.0.modified)
    }

    /// When it was read last.
    pub fn accessed(&self) -> Option<SystemTime> {
        file::time(self.0.accessed)
    }

    /// The user it belongs to.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// The group it belongs to.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }

    /// How many names it has.
    pub fn links(&self) -> u64 {
        self.0.links
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name in the directory.
    pub name: String,
    /// What it is, a link standing for itself.
    pub kind: FileKind,
}

/// The entries of a directory.
#[derive(Debug)]
pub struct ReadDir {
    host: Host,
    request: Option<messages::ListRequest>,
    page: VecDeque<DirEntry>,
    unreadable: u32,
}

impl ReadDir {
    /// The next entry; nothing after the last one.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// A page is fetched again when the future is dropped; no entry is lost.
    pub async fn next(&mut self) -> Result<Option<DirEntry>, HostError> {
        while self.page.is_empty() {
            let Some(request) = &self.request else {
                return Ok(None);
            };
            let page = fs!(self.host, list, request.clone())?;
            let entries = page.entries.into_iter().map(|entry| DirEntry {
                kind: FileKind::from_wire(entry.kind()),
                name: entry.name,
            });
            self.page.extend(entries);
            self.unreadable += page.unreadable;
            match &mut self.request {
                Some(request) if !page.next.is_empty() => request.cookie = page.next,
                request => *request = None,
            }
        }
        Ok(self.page.pop_front())
    }

    /// Names so far that are no UTF-8 and were left out.
    pub fn unreadable(&self) -> u32 {
        self.unreadable
    }

    /// The entries as a stream.
    pub fn stream(self) -> impl Stream<Item = Result<DirEntry, HostError>> + Send {
        futures_util::stream::try_unfold(self, |mut entries| async {
            Ok(entries.next().await?.map(|entry| (entry, entries)))
        })
    }
}

/// What happened to something that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It is not what it was.
    Modified,
    /// It is gone.
    Removed,
    /// Changes were lost: look again.
    Overflow,
}

/// A change of something that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What changed.
    pub path: PathBuf,
    /// How.
    pub kind: ChangeKind,
}

/// Changes beneath a path, until it is dropped.
#[derive(Debug)]
pub struct Watch(Streaming<messages::WatchResponse>);

impl Watch {
    /// The next change; nothing when the host watches no longer.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// No change is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Change>, HostError> {
        while let Some(change) = self.message().await? {
            let kind = match change.kind() {
                messages::ChangeKind::Created => ChangeKind::Created,
                messages::ChangeKind::Modified => ChangeKind::Modified,
                messages::ChangeKind::Removed => ChangeKind::Removed,
                messages::ChangeKind::Overflow => ChangeKind::Overflow,
                messages::ChangeKind::Ready | messages::ChangeKind::Unspecified => continue,
            };
            let path = change.path.into();
            return Ok(Some(Change { path, kind }));
        }
        Ok(None)
    }

    async fn message(&mut self) -> Result<Option<messages::WatchResponse>, HostError> {
        let lost = |status: Status| HostError::status("filesystem.watch", status);
        self.0.next().await.transpose().map_err(lost)
    }
}

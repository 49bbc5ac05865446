//! Files beneath what was granted.

use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;

use super::calls::call;
use super::lease::Lease;
use super::{Dir, File, Host, HostError, Metadata, OpenOptions, ReadDir, Watch};

/// Files beneath what was granted. A path is absolute, or relative to the only
/// granted directory where there is exactly one.
///
/// # Examples
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), outrigger_plugin::HostError> {
/// let fs = host.fs();
/// let settings = match fs.read_to_string("/data/settings.toml").await {
///     Err(error) if error.is_not_found() => String::new(),
///     read => read?,
/// };
/// fs.write("/data/settings.toml", format!("{settings}seen = true\n")).await?;
///
/// let mut entries = fs.read_dir("/data");
/// while let Some(entry) = entries.next().await? {
///     println!("{} is a {:?}", entry.name, entry.kind);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Fs(pub(super) Host);

impl Fs {
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
        OpenOptions::new(self.0.clone())
    }

    /// Opens a directory, from which files can be opened.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open_dir(&self, path: impl Into<String>) -> Result<Dir, HostError> {
        let request = messages::OpenDirRequest { path: path.into() };
        let id = call!(self.0, filesystem.open_dir, request)?.lease;
        let host = self.0.clone();
        Ok(Dir::new(Lease { host, id }))
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
            call!(self.0, filesystem.write_file, request)?;
            return Ok(());
        }
        let mut file = self.create(path).await?;
        file.write_all(contents).await?;
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
        Ok(call!(self.0, filesystem.append, request)?.size)
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
        Ok(call!(self.0, filesystem.copy, request)?.copied)
    }

    /// What is at a path, following links.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn metadata(&self, path: impl Into<String>) -> Result<Metadata, HostError> {
        let request = messages::StatRequest { path: path.into() };
        let stat = call!(self.0, filesystem.stat, request)?;
        Ok(Metadata::from_wire(stat.info))
    }

    /// What is at a path, a link standing for itself.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn symlink_metadata(&self, path: impl Into<String>) -> Result<Metadata, HostError> {
        let request = messages::LstatRequest { path: path.into() };
        let stat = call!(self.0, filesystem.lstat, request)?;
        Ok(Metadata::from_wire(stat.info))
    }

    /// Whether something is at a path.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn exists(&self, path: impl Into<String>) -> Result<bool, HostError> {
        let request = messages::ExistsRequest { path: path.into() };
        Ok(call!(self.0, filesystem.exists, request)?.exists)
    }

    /// The entries of a directory, fetched page by page as they are taken.
    pub fn read_dir(&self, path: impl Into<String>) -> ReadDir {
        ReadDir::new(self.0.clone(), path.into())
    }

    /// The target of a link.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn read_link(&self, path: impl Into<String>) -> Result<PathBuf, HostError> {
        let request = messages::ReadlinkRequest { path: path.into() };
        Ok(call!(self.0, filesystem.readlink, request)?.target.into())
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
        let request = messages::MkdirRequest {
            path,
            mode: 0,
            parents,
        };
        call!(self.0, filesystem.mkdir, request)?;
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
        call!(self.0, filesystem.rename, request)?;
        Ok(())
    }

    /// Removes a file, a link or an empty directory.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn remove(&self, path: impl Into<String>) -> Result<(), HostError> {
        let request = messages::RemoveRequest { path: path.into() };
        call!(self.0, filesystem.remove, request)?;
        Ok(())
    }

    /// Removes whatever is at a path, with all that is in it. Nothing there is
    /// fine too.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn remove_all(&self, path: impl Into<String>) -> Result<(), HostError> {
        let request = messages::RemoveAllRequest { path: path.into() };
        call!(self.0, filesystem.remove_all, request)?;
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
        call!(
            self.0,
            filesystem.link,
            messages::LinkRequest { existing, new }
        )?;
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
        call!(
            self.0,
            filesystem.symlink,
            messages::SymlinkRequest { target, new }
        )?;
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
        call!(
            self.0,
            filesystem.chmod,
            messages::ChmodRequest { path, mode }
        )?;
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
        call!(self.0, filesystem.chown, request)?;
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
            accessed: accessed.map(SystemTime::into),
            modified: modified.map(SystemTime::into),
        };
        call!(self.0, filesystem.chtimes, request)?;
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
        call!(self.0, filesystem.truncate, request)?;
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
        let request = messages::TempFileRequest {
            pattern: pattern.into(),
        };
        if let Some(descriptors) = self.0.descriptors().filter(|_| !self.0.counts_writes()) {
            let operation = "filesystem.temp_file";
            let asked = Request::TempFile(request.clone());
            match descriptors.ask_for_one(operation, asked).await? {
                Some((Reply::TempFile(made), file)) => {
                    let file = File::from_descriptor(file.into(), false);
                    return Ok((file, made.path.into()));
                }
                Some(_) => return Err(HostError::protocol(operation)),
                None => {}
            }
        }
        let made = call!(self.0, filesystem.temp_file, request)?;
        let file = File::from_lease(self.0.clone(), made.lease, false);
        Ok((file, made.path.into()))
    }

    /// A new directory, which the host removes when the plugin is gone.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn temp_dir(&self, pattern: impl Into<String>) -> Result<PathBuf, HostError> {
        let pattern = pattern.into();
        let made = call!(
            self.0,
            filesystem.temp_dir,
            messages::TempDirRequest { pattern }
        )?;
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
        let request = messages::WatchRequest { path, recursive };
        Watch::begin(call!(self.0, filesystem.watch, request)?).await
    }
}

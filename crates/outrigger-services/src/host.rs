//! What a plugin may learn about the host: ids, variables, directories.

use outrigger_wire::proto::hostserve::*;
use rustix::process;

use crate::environment::UserDir;
use crate::fault::Fault;
use crate::session::Session;

/// The contract's ids are signed.
fn id(raw: u32) -> i32 {
    raw.cast_signed()
}

pub(crate) fn getuid(_: &Session, _: &GetuidRequest) -> Result<GetuidResponse, Fault> {
    Ok(GetuidResponse {
        uid: id(process::getuid().as_raw()),
        error: None,
    })
}

pub(crate) fn getgid(_: &Session, _: &GetgidRequest) -> Result<GetgidResponse, Fault> {
    Ok(GetgidResponse {
        gid: id(process::getgid().as_raw()),
        error: None,
    })
}

pub(crate) fn geteuid(_: &Session, _: &GeteuidRequest) -> Result<GeteuidResponse, Fault> {
    Ok(GeteuidResponse {
        euid: id(process::geteuid().as_raw()),
        error: None,
    })
}

pub(crate) fn getegid(_: &Session, _: &GetegidRequest) -> Result<GetegidResponse, Fault> {
    Ok(GetegidResponse {
        egid: id(process::getegid().as_raw()),
        error: None,
    })
}

pub(crate) fn getpid(_: &Session, _: &GetpidRequest) -> Result<GetpidResponse, Fault> {
    Ok(GetpidResponse {
        pid: process::getpid().as_raw_nonzero().get(),
        error: None,
    })
}

/// 0 when the parent is outside the host's process namespace, as the system
/// says it.
pub(crate) fn getppid(_: &Session, _: &GetppidRequest) -> Result<GetppidResponse, Fault> {
    let ppid = process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    Ok(GetppidResponse { ppid, error: None })
}

pub(crate) fn get_groups(_: &Session, _: &GetGroupsRequest) -> Result<GetGroupsResponse, Fault> {
    let groups = process::getgroups()?
        .into_iter()
        .map(|gid| id(gid.as_raw()))
        .collect();
    Ok(GetGroupsResponse {
        groups,
        error: None,
    })
}

pub(crate) fn get_env(session: &Session, request: &GetEnvRequest) -> Result<GetEnvResponse, Fault> {
    let val = session
        .granted
        .environment
        .get(&request.key, session.limits().payload())?;
    Ok(GetEnvResponse { val, error: None })
}

/// The plugin's own temporary directory rather than the system's: the one that
/// it can use.
pub(crate) fn temp_dir(session: &Session, _: &TempDirRequest) -> Result<TempDirResponse, Fault> {
    match session.temp()?.area().name().to_str() {
        Some(dir) => Ok(TempDirResponse {
            dir: dir.into(),
            error: None,
        }),
        None => Err(Fault::Failed("the temporary directory is not UTF-8".into())),
    }
}

/// [`temp_dir`] once the directory exists.
pub(crate) fn temp_dir_now(
    session: &Session,
    request: &TempDirRequest,
) -> Option<Result<TempDirResponse, Fault>> {
    session.temp_if_made().map(|_| temp_dir(session, request))
}

fn user_dir(dir: UserDir) -> Result<String, Fault> {
    dir.find(|name| std::env::var_os(name))
}

pub(crate) fn user_cache_dir(
    _: &Session,
    _: &UserCacheDirRequest,
) -> Result<UserCacheDirResponse, Fault> {
    Ok(UserCacheDirResponse {
        dir: user_dir(UserDir::Cache)?,
        error: None,
    })
}

pub(crate) fn user_config_dir(
    _: &Session,
    _: &UserConfigDirRequest,
) -> Result<UserConfigDirResponse, Fault> {
    Ok(UserConfigDirResponse {
        dir: user_dir(UserDir::Config)?,
        error: None,
    })
}

pub(crate) fn user_home_dir(
    _: &Session,
    _: &UserHomeDirRequest,
) -> Result<UserHomeDirResponse, Fault> {
    Ok(UserHomeDirResponse {
        dir: user_dir(UserDir::Home)?,
        error: None,
    })
}

//! What a plugin may learn about the host: ids, variables, directories.

use outrigger_wire::proto::hostserve::*;
use rustix::process;

use super::variables::{self, UserDir};
use crate::fault::Fault;
use crate::fs::Cx;

/// The contract's ids are signed.
fn id(raw: u32) -> i32 {
    raw.cast_signed()
}

pub(crate) fn getuid(_: &Cx, _: &GetuidRequest) -> Result<GetuidResponse, Fault> {
    Ok(GetuidResponse {
        uid: id(process::getuid().as_raw()),
        error: None,
    })
}

pub(crate) fn getgid(_: &Cx, _: &GetgidRequest) -> Result<GetgidResponse, Fault> {
    Ok(GetgidResponse {
        gid: id(process::getgid().as_raw()),
        error: None,
    })
}

pub(crate) fn geteuid(_: &Cx, _: &GeteuidRequest) -> Result<GeteuidResponse, Fault> {
    Ok(GeteuidResponse {
        euid: id(process::geteuid().as_raw()),
        error: None,
    })
}

pub(crate) fn getegid(_: &Cx, _: &GetegidRequest) -> Result<GetegidResponse, Fault> {
    Ok(GetegidResponse {
        egid: id(process::getegid().as_raw()),
        error: None,
    })
}

pub(crate) fn getpid(_: &Cx, _: &GetpidRequest) -> Result<GetpidResponse, Fault> {
    Ok(GetpidResponse {
        pid: process::getpid().as_raw_nonzero().get(),
        error: None,
    })
}

/// 0 when the parent is outside the host's process namespace, as the system
/// says it.
pub(crate) fn getppid(_: &Cx, _: &GetppidRequest) -> Result<GetppidResponse, Fault> {
    let ppid = process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    Ok(GetppidResponse { ppid, error: None })
}

pub(crate) fn get_groups(_: &Cx, _: &GetGroupsRequest) -> Result<GetGroupsResponse, Fault> {
    let groups = process::getgroups()?
        .into_iter()
        .map(|gid| id(gid.as_raw()))
        .collect();
    Ok(GetGroupsResponse {
        groups,
        error: None,
    })
}

pub(crate) fn get_env(cx: &Cx, request: &GetEnvRequest) -> Result<GetEnvResponse, Fault> {
    let val = variables::get(cx, &request.key)?;
    Ok(GetEnvResponse { val, error: None })
}

/// The plugin's own temporary directory rather than the system's: the one that
/// it can use.
pub(crate) fn temp_dir(cx: &Cx, _: &TempDirRequest) -> Result<TempDirResponse, Fault> {
    let area = cx.temp()?.area();
    cx.notes.allowed_by(&area.rule);
    match area.canonical.to_str() {
        Some(dir) => Ok(TempDirResponse {
            dir: dir.into(),
            error: None,
        }),
        None => Err(Fault::failed("the temporary directory is not UTF-8")),
    }
}

/// [`temp_dir`] once the directory exists.
pub(crate) fn temp_dir_now(
    cx: &Cx,
    request: &TempDirRequest,
) -> Option<Result<TempDirResponse, Fault>> {
    cx.session.temp_if_made().map(|_| temp_dir(cx, request))
}

fn user_dir(dir: UserDir) -> Result<String, Fault> {
    dir.find(|name| std::env::var_os(name))
}

pub(crate) fn user_cache_dir(
    _: &Cx,
    _: &UserCacheDirRequest,
) -> Result<UserCacheDirResponse, Fault> {
    Ok(UserCacheDirResponse {
        dir: user_dir(UserDir::Cache)?,
        error: None,
    })
}

pub(crate) fn user_config_dir(
    _: &Cx,
    _: &UserConfigDirRequest,
) -> Result<UserConfigDirResponse, Fault> {
    Ok(UserConfigDirResponse {
        dir: user_dir(UserDir::Config)?,
        error: None,
    })
}

pub(crate) fn user_home_dir(_: &Cx, _: &UserHomeDirRequest) -> Result<UserHomeDirResponse, Fault> {
    Ok(UserHomeDirResponse {
        dir: user_dir(UserDir::Home)?,
        error: None,
    })
}

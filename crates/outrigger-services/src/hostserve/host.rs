//! What a plugin may learn about the host: ids, variables, directories.

use outrigger_wire::proto::hostserve::*;
use rustix::process;

use crate::environment::{self, UserDir};
use crate::fault::Fault;
use crate::fs::call::FileCall;

/// The contract's ids are signed.
fn id(raw: u32) -> i32 {
    raw.cast_signed()
}

pub(crate) fn getuid(_: &FileCall, _: &GetuidRequest) -> Result<GetuidResponse, Fault> {
    Ok(GetuidResponse {
        uid: id(process::getuid().as_raw()),
        error: None,
    })
}

pub(crate) fn getgid(_: &FileCall, _: &GetgidRequest) -> Result<GetgidResponse, Fault> {
    Ok(GetgidResponse {
        gid: id(process::getgid().as_raw()),
        error: None,
    })
}

pub(crate) fn geteuid(_: &FileCall, _: &GeteuidRequest) -> Result<GeteuidResponse, Fault> {
    Ok(GeteuidResponse {
        euid: id(process::geteuid().as_raw()),
        error: None,
    })
}

pub(crate) fn getegid(_: &FileCall, _: &GetegidRequest) -> Result<GetegidResponse, Fault> {
    Ok(GetegidResponse {
        egid: id(process::getegid().as_raw()),
        error: None,
    })
}

pub(crate) fn getpid(_: &FileCall, _: &GetpidRequest) -> Result<GetpidResponse, Fault> {
    Ok(GetpidResponse {
        pid: process::getpid().as_raw_nonzero().get(),
        error: None,
    })
}

/// 0 when the parent is outside the host's process namespace, as the system
/// says it.
pub(crate) fn getppid(_: &FileCall, _: &GetppidRequest) -> Result<GetppidResponse, Fault> {
    let ppid = process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    Ok(GetppidResponse { ppid, error: None })
}

pub(crate) fn get_groups(_: &FileCall, _: &GetGroupsRequest) -> Result<GetGroupsResponse, Fault> {
    let groups = process::getgroups()?
        .into_iter()
        .map(|gid| id(gid.as_raw()))
        .collect();
    Ok(GetGroupsResponse {
        groups,
        error: None,
    })
}

pub(crate) fn get_env(call: &FileCall, request: &GetEnvRequest) -> Result<GetEnvResponse, Fault> {
    let value = environment::answer(&call.session, &call.progress, &request.key)?;
    // Empty where it is not set, as with Go's `os.Getenv`.
    let val = value.unwrap_or_default();
    Ok(GetEnvResponse { val, error: None })
}

/// The plugin's own temporary directory rather than the system's: the one that
/// it can use.
pub(crate) fn temp_dir(call: &FileCall, _: &TempDirRequest) -> Result<TempDirResponse, Fault> {
    if call.files.temp_if_made().is_none() {
        call.wait()?;
    }
    let area = call.files.temp()?.area();
    call.progress.allowed_by(&area.rule);
    match area.canonical.to_str() {
        Some(dir) => Ok(TempDirResponse {
            dir: dir.into(),
            error: None,
        }),
        None => Err(Fault::failed("the temporary directory is not UTF-8")),
    }
}

fn user_dir(dir: UserDir) -> Result<String, Fault> {
    dir.find(|name| std::env::var_os(name))
}

pub(crate) fn user_cache_dir(
    _: &FileCall,
    _: &UserCacheDirRequest,
) -> Result<UserCacheDirResponse, Fault> {
    Ok(UserCacheDirResponse {
        dir: user_dir(UserDir::Cache)?,
        error: None,
    })
}

pub(crate) fn user_config_dir(
    _: &FileCall,
    _: &UserConfigDirRequest,
) -> Result<UserConfigDirResponse, Fault> {
    Ok(UserConfigDirResponse {
        dir: user_dir(UserDir::Config)?,
        error: None,
    })
}

pub(crate) fn user_home_dir(
    _: &FileCall,
    _: &UserHomeDirRequest,
) -> Result<UserHomeDirResponse, Fault> {
    Ok(UserHomeDirResponse {
        dir: user_dir(UserDir::Home)?,
        error: None,
    })
}

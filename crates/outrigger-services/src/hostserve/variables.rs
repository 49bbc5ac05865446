//! Environment variables and the directories that they name.

pub(super) use crate::environment::UserDir;
use crate::environment::text;
use crate::fault::Fault;
use crate::fs::Cx;

/// The value of `name`: what the manifest sets, or what the host has where that
/// is granted; empty where it is not set, as Go's `os.Getenv`.
pub(super) fn get(cx: &Cx, name: &str) -> Result<String, Fault> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Fault::failed("not a variable's name"));
    }
    let environment = cx.session.grants().environment();
    if let Some((_, value)) = environment.set().find(|(set, _)| *set == name) {
        return Ok(value.to_owned());
    }
    let rule = environment.read(name)?;
    cx.notes.allowed_by(&rule.to_string());
    let value = text(std::env::var_os(name).unwrap_or_default())?;
    let longest = cx.session.limits().payload();
    if value.len() > longest {
        return Err(Fault::exhausted(
            "value-too-long",
            format!("the value is longer than {longest} bytes"),
        ));
    }
    Ok(value)
}

//! The environment of a command: made from nothing, never inherited.

/// What a command finds besides the names that it was given.
const FIXED: [(&str, &str); 2] = [("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8")];
/// Set to a directory that the plugin cannot reach: what programs read there
/// steers them.
const DIRECTORIES: [&str; 2] = ["HOME", "TMPDIR"];

/// Names with these beginnings make a program load or run something else.
const STEERING_PREFIXES: [&str; 8] = [
    "LD_",
    "DYLD_",
    "GLIBC_",
    "MALLOC_",
    "BASH_FUNC_",
    "GIT_CONFIG",
    "PYTHON",
    "OUTRIGGER_",
];

/// So do these.
const STEERING: [&str; 48] = [
    "BASHOPTS",
    "BASH_ENV",
    "BROWSER",
    "CDPATH",
    "CLASSPATH",
    "EDITOR",
    "ENV",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GIT_ASKPASS",
    "GIT_EDITOR",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_PROXY_COMMAND",
    "GIT_SEQUENCE_EDITOR",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_TEMPLATE_DIR",
    "HOSTALIASES",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LESSCLOSE",
    "LESSOPEN",
    "LOCALDOMAIN",
    "LOCPATH",
    "NIS_PATH",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "PAGER",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PROMPT_COMMAND",
    "PS4",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "TZDIR",
    "_JAVA_OPTIONS",
];

/// Why a plugin may not give a command a variable, whatever was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadVariable {
    #[error("not a variable's name")]
    NotAName,
    #[error("the value holds a zero byte")]
    ZeroByte,
    #[error("the host sets this variable itself")]
    Fixed,
    #[error("the variable can make a program run something else")]
    Steering,
}

/// Whether a variable may be given to a command at all.
pub(crate) fn check(name: &str, value: &str) -> Result<(), BadVariable> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(BadVariable::NotAName);
    }
    if value.contains('\0') {
        return Err(BadVariable::ZeroByte);
    }
    let fixed = FIXED.iter().map(|(name, _)| name).chain(&DIRECTORIES);
    if fixed.into_iter().any(|fixed| *fixed == name) {
        return Err(BadVariable::Fixed);
    }
    if STEERING.contains(&name)
        || STEERING_PREFIXES
            .iter()
            .any(|start| name.starts_with(start))
    {
        return Err(BadVariable::Steering);
    }
    Ok(())
}

/// The whole environment of a command.
pub(crate) fn compose<'a>(
    home: &str,
    mark: (&str, &str),
    given: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Vec<(String, String)> {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let directories = DIRECTORIES.map(|name| (name, home));
    let fixed = FIXED.into_iter().chain(directories).chain([mark]);
    let given = given
        .into_iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    fixed.map(own).chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_program_is_never_given_to_one() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "BASH_ENV",
            "GIT_CONFIG_COUNT",
            "PYTHONPATH",
        ] {
            assert_eq!(check(name, "x"), Err(BadVariable::Steering), "{name}");
        }
        for name in ["PATH", "HOME", "TMPDIR", "LANG"] {
            assert_eq!(check(name, "x"), Err(BadVariable::Fixed), "{name}");
        }
        for name in ["", "A=B", "A\0"] {
            assert_eq!(check(name, "x"), Err(BadVariable::NotAName));
        }
        assert_eq!(check("A", "x\0"), Err(BadVariable::ZeroByte));
        assert_eq!(check("GIT_AUTHOR_NAME", "a\nb"), Ok(()));
    }

    #[test]
    fn the_environment_is_the_fixed_part_and_what_was_given() {
        let (name, value) = ("TZ".to_owned(), "UTC".to_owned());
        let made = compose("/tmp/p", ("MARK", "1"), [(&name, &value)]);
        let made: Vec<(&str, &str)> = made.iter().map(|(n, v)| (&**n, &**v)).collect();
        let expected = [
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("HOME", "/tmp/p"),
            ("TMPDIR", "/tmp/p"),
            ("MARK", "1"),
            ("TZ", "UTC"),
        ];
        assert_eq!(made, expected);
    }
}

//! The environment variables a host gives to its plugin.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::numbers::{parse_go_bool, parse_go_int};
use crate::{AppProtocolVersion, Coded, Excerpt};

/// Lowest TCP port the plugin may listen on, decimal.
pub const ENV_MIN_PORT: &str = "PLUGIN_MIN_PORT";
/// Highest TCP port the plugin may listen on, decimal.
pub const ENV_MAX_PORT: &str = "PLUGIN_MAX_PORT";
/// The app protocol versions the host offers, decimal, joined by commas.
pub const ENV_PROTOCOL_VERSIONS: &str = "PLUGIN_PROTOCOL_VERSIONS";
/// `true` if the host asks for a multiplexed broker, otherwise not set.
pub const ENV_MULTIPLEX_GRPC: &str = "PLUGIN_MULTIPLEX_GRPC";
/// The host's one-time certificate as one PEM block, if it uses auto mTLS.
pub const ENV_CLIENT_CERT: &str = "PLUGIN_CLIENT_CERT";
/// The group, by name or decimal id, every socket of the plugin must get.
pub const ENV_UNIX_SOCKET_GROUP: &str = "PLUGIN_UNIX_SOCKET_GROUP";
/// The directory the plugin must create its sockets in.
pub const ENV_UNIX_SOCKET_DIR: &str = "PLUGIN_UNIX_SOCKET_DIR";

/// Variables a host that is itself a plugin must not pass on: a child that
/// inherits them enables TLS or multiplexing nobody asked it for, or puts its
/// sockets where they do not belong. The remaining variables need no such care
/// because every host sets them anew.
pub const SCRUBBED: &[&str] = &[
    ENV_MULTIPLEX_GRPC,
    ENV_CLIENT_CERT,
    ENV_UNIX_SOCKET_GROUP,
    ENV_UNIX_SOCKET_DIR,
];

/// The broker id of the host's services, for plugins whose library knows it;
/// not a variable of go-plugin's.
pub const ENV_HOST_SERVICES: &str = "OUTRIGGER_HOST_SERVICES";

/// Where the services of the application's own are that this plugin may call: for each its name,
/// `=` and where it listens, separated by `|`; not a variable of go-plugin's. See
/// [`offered_services`].
pub const ENV_SERVICES: &str = "OUTRIGGER_SERVICES";

/// The file with the plugin's own configuration, as JSON, for plugins that have one; not a
/// variable of go-plugin's. The file is replaced when there is another configuration.
pub const ENV_PLUGIN_CONFIG: &str = "OUTRIGGER_PLUGIN_CONFIG";

/// The value of [`ENV_SERVICES`] for services at these unix sockets.
///
/// ```
/// use outrigger_wire::{offered_services, services_value};
///
/// let value = services_value([("cache", "/run/a"), ("geo", "/run/b")]);
/// assert_eq!(value, "cache=unix:/run/a|geo=unix:/run/b");
/// let services: Vec<_> = offered_services(&value).collect();
/// assert_eq!(services, [("cache", "unix:/run/a"), ("geo", "unix:/run/b")]);
/// ```
pub fn services_value<'a>(services: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let services = services.into_iter();
    let shown = services.map(|(name, path)| format!("{name}=unix:{path}"));
    shown.collect::<Vec<_>>().join("|")
}

/// The names in the value of [`ENV_SERVICES`], each with its address as gRPC's libraries take
/// it. Entries without a `=` are passed over.
pub fn offered_services(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split('|').filter_map(|entry| entry.split_once('='))
}

/// The ports a plugin may use if the host does not say otherwise.
pub const DEFAULT_PORT_RANGE: PortRange = PortRange {
    min: 10000,
    max: 25000,
};

/// A key and a value by which a plugin knows that it was meant to be run by
/// this kind of host. It keeps people from starting plugins by hand; it keeps
/// nobody out.
///
/// ```
/// use outrigger_wire::{Coded, MagicCookie};
///
/// let cookie = MagicCookie::new("GREETER_PLUGIN", "hello");
/// assert!(cookie.check(|_| Some("hello".to_owned())).is_ok());
/// assert_eq!(cookie.check(|_| None).unwrap_err().code(), "cookie-mismatch");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MagicCookie {
    /// The name of the environment variable.
    pub key: String,
    /// What the variable must contain.
    pub value: String,
}

impl MagicCookie {
    /// A cookie of that key and value.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> MagicCookie {
        MagicCookie {
            key: key.into(),
            value: value.into(),
        }
    }

    /// What a plugin does before anything else: see whether its environment
    /// carries the cookie. `lookup` returns the value of a variable.
    ///
    /// # Errors
    /// [`CookieError`], after which the plugin prints advice to stderr,
    /// nothing to stdout, and exits with code 1.
    pub fn check(&self, lookup: impl Fn(&str) -> Option<String>) -> Result<(), CookieError> {
        if self.key.is_empty() || self.value.is_empty() {
            return Err(CookieError::NotConfigured);
        }
        match lookup(&self.key) {
            Some(value) if value == self.value => Ok(()),
            _ => Err(CookieError::Mismatch {
                key: Excerpt::from(self.key.as_str()),
            }),
        }
    }
}

impl<K: Into<String>, V: Into<String>> From<(K, V)> for MagicCookie {
    fn from((key, value): (K, V)) -> MagicCookie {
        MagicCookie::new(key, value)
    }
}

/// Why a plugin must not start serving.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    /// `cookie-not-configured`. *Cause:* the plugin was built with an empty
    /// cookie key or value. *Resolution:* set both in the plugin's program.
    #[error("magic cookie of this plugin has no key or no value")]
    NotConfigured,
    /// `cookie-mismatch`. *Cause:* the program was started by hand, or by a
    /// host for other plugins. *Resolution:* let its own host start it.
    #[error("environment variable {key} does not hold the magic cookie of this plugin")]
    Mismatch {
        /// The name of the variable.
        key: Excerpt,
    },
}

impl Coded for CookieError {
    fn code(&self) -> &'static str {
        match self {
            CookieError::NotConfigured => "cookie-not-configured",
            CookieError::Mismatch { .. } => "cookie-mismatch",
        }
    }
}

/// The TCP ports a plugin may listen on, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// The first port to try; 0 lets the system choose.
    pub min: u16,
    /// The last port to try.
    pub max: u16,
}

impl PortRange {
    /// A range from `min` to `max`.
    ///
    /// # Errors
    /// [`PortRangeError::Reversed`] if `min` is greater than `max`.
    pub fn new(min: u16, max: u16) -> Result<PortRange, PortRangeError> {
        if min > max {
            Err(PortRangeError::Reversed { min, max })
        } else {
            Ok(PortRange { min, max })
        }
    }

    /// Reads a range from the values of [`ENV_MIN_PORT`] and
    /// [`ENV_MAX_PORT`], where empty means 0.
    ///
    /// ```
    /// use outrigger_wire::PortRange;
    ///
    /// assert_eq!(PortRange::from_env("10000", "25000"), PortRange::new(10000, 25000));
    /// assert_eq!(
    ///     PortRange::from_env("ten", "").unwrap_err().to_string(),
    ///     r#"couldn't get value from PLUGIN_MIN_PORT: "ten" is not a port number (0–65535)"#
    /// );
    /// ```
    ///
    /// # Errors
    /// [`PortRangeError`].
    pub fn from_env(min: &str, max: &str) -> Result<PortRange, PortRangeError> {
        PortRange::new(port(ENV_MIN_PORT, min)?, port(ENV_MAX_PORT, max)?)
    }
}

fn port(variable: &'static str, value: &str) -> Result<u16, PortRangeError> {
    if value.is_empty() {
        return Ok(0);
    }
    parse_go_int(value)
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| PortRangeError::NotAPort {
            variable,
            observed: Excerpt::from(value),
        })
}

/// Why two values do not make a range of ports.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortRangeError {
    /// `port-invalid`. *Cause:* a value is not a number within 0–65535.
    /// *Resolution:* correct the variable, which a host sets for its plugins.
    #[error("couldn't get value from {variable}: {observed} is not a port number (0–65535)")]
    NotAPort {
        /// The variable that holds the value.
        variable: &'static str,
        /// The value as it was found.
        observed: Excerpt,
    },
    /// `port-range-reversed`. *Cause:* the lowest port is greater than the
    /// highest. *Resolution:* exchange them.
    #[error("{ENV_MIN_PORT} value of {min} is greater than {ENV_MAX_PORT} value of {max}")]
    Reversed {
        /// The lowest port.
        min: u16,
        /// The highest port.
        max: u16,
    },
}

impl Coded for PortRangeError {
    fn code(&self) -> &'static str {
        match self {
            PortRangeError::NotAPort { .. } => "port-invalid",
            PortRangeError::Reversed { .. } => "port-range-reversed",
        }
    }
}

/// What a host tells its plugin through the environment.
#[derive(Clone, Copy, Debug)]
pub struct HostEnvironment<'a> {
    /// The cookie of this kind of plugin; the variable is left out without one.
    pub cookie: Option<&'a MagicCookie>,
    /// The ports the plugin may use if it listens on TCP.
    pub ports: PortRange,
    /// The versions the host offers.
    pub versions: &'a BTreeSet<AppProtocolVersion>,
    /// Whether the host asks for a multiplexed broker.
    pub mux: bool,
    /// The host's one-time certificate, if it uses auto mTLS: one PEM block
    /// with a newline at its end.
    pub client_certificate_pem: Option<&'a str>,
    /// The group of the plugin's sockets; empty is the same as `None`.
    pub socket_group: Option<&'a str>,
    /// The directory of the plugin's sockets.
    pub socket_dir: Option<&'a str>,
}

impl HostEnvironment<'_> {
    /// The variables in the order in which they follow the inherited ones.
    /// Where a name occurs twice in an environment the last one counts.
    ///
    /// ```
    /// use std::collections::BTreeSet;
    /// use outrigger_wire::{AppProtocolVersion, DEFAULT_PORT_RANGE, HostEnvironment, MagicCookie};
    ///
    /// let cookie = MagicCookie::new("GREETER_PLUGIN", "hello");
    /// let environment = HostEnvironment {
    ///     cookie: Some(&cookie),
    ///     ports: DEFAULT_PORT_RANGE,
    ///     versions: &BTreeSet::from([AppProtocolVersion(3), AppProtocolVersion(2)]),
    ///     mux: false,
    ///     client_certificate_pem: None,
    ///     socket_group: None,
    ///     socket_dir: None,
    /// };
    /// let variables = environment.variables();
    /// assert_eq!(variables[0], ("GREETER_PLUGIN".to_owned(), "hello".to_owned()));
    /// assert_eq!(variables[3], ("PLUGIN_PROTOCOL_VERSIONS".to_owned(), "2,3".to_owned()));
    /// assert_eq!(variables.len(), 4);
    /// ```
    pub fn variables(&self) -> Vec<(String, String)> {
        let versions: Vec<String> = self.versions.iter().map(ToString::to_string).collect();
        let optional = [
            (ENV_MULTIPLEX_GRPC, self.mux.then_some("true")),
            (ENV_CLIENT_CERT, self.client_certificate_pem),
            (
                ENV_UNIX_SOCKET_GROUP,
                self.socket_group.filter(|group| !group.is_empty()),
            ),
            (ENV_UNIX_SOCKET_DIR, self.socket_dir),
        ];
        // The system knows no variable without a name.
        let cookie = self.cookie.filter(|cookie| !cookie.key.is_empty());
        let cookie = cookie.map(|cookie| (cookie.key.clone(), cookie.value.clone()));
        let always = [
            (ENV_MIN_PORT.to_owned(), self.ports.min.to_string()),
            (ENV_MAX_PORT.to_owned(), self.ports.max.to_string()),
            (ENV_PROTOCOL_VERSIONS.to_owned(), versions.join(",")),
        ];
        let optional = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        cookie.into_iter().chain(always).chain(optional).collect()
    }
}

/// What a plugin learns from its environment, apart from the cookie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginEnvironment {
    /// The versions the host offers, ascending, each once.
    pub versions: Vec<AppProtocolVersion>,
    /// The parts of the list that are no version, for a complaint on stderr.
    pub ignored_versions: Vec<String>,
    /// Whether the handshake line must have its seventh field.
    pub mux_field: bool,
    /// Whether the host asks for a multiplexed broker. The field can be wanted
    /// without it, if the variable holds anything but a true boolean.
    pub mux: bool,
    /// The host's certificate, if it uses auto mTLS.
    pub client_certificate_pem: Option<String>,
    /// The group, by name or decimal id, of every socket the plugin creates.
    pub socket_group: Option<String>,
    /// The directory of every socket the plugin creates.
    pub socket_dir: Option<PathBuf>,
    /// The ports to try when listening on TCP, `None` if the host named none.
    /// An error matters only to a plugin that does listen on TCP.
    pub ports: Result<Option<PortRange>, PortRangeError>,
}

impl PluginEnvironment {
    /// Reads the environment. `lookup` returns the value of a variable; an
    /// empty value is the same as none.
    ///
    /// ```
    /// use outrigger_wire::{AppProtocolVersion, PluginEnvironment};
    ///
    /// let environment = PluginEnvironment::read(|name| {
    ///     (name == "PLUGIN_PROTOCOL_VERSIONS").then(|| "3,x,2".to_owned())
    /// });
    /// assert_eq!(environment.versions, [AppProtocolVersion(2), AppProtocolVersion(3)]);
    /// assert_eq!(environment.ignored_versions, ["x"]);
    /// assert!(!environment.mux_field);
    /// ```
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> PluginEnvironment {
        let non_empty = |name| lookup(name).filter(|value| !value.is_empty());
        let (versions, ignored_versions) =
            read_versions(&non_empty(ENV_PROTOCOL_VERSIONS).unwrap_or_default());
        let mux = non_empty(ENV_MULTIPLEX_GRPC);
        let ports = match (non_empty(ENV_MIN_PORT), non_empty(ENV_MAX_PORT)) {
            (None, None) => Ok(None),
            (min, max) => {
                PortRange::from_env(&min.unwrap_or_default(), &max.unwrap_or_default()).map(Some)
            }
        };
        PluginEnvironment {
            versions,
            ignored_versions,
            mux_field: mux.is_some(),
            mux: mux.as_deref().and_then(parse_go_bool) == Some(true),
            client_certificate_pem: non_empty(ENV_CLIENT_CERT),
            socket_group: non_empty(ENV_UNIX_SOCKET_GROUP),
            socket_dir: non_empty(ENV_UNIX_SOCKET_DIR).map(PathBuf::from),
            ports,
        }
    }
}

/// The versions of a list in ascending order, and the parts that are none.
fn read_versions(list: &str) -> (Vec<AppProtocolVersion>, Vec<String>) {
    if list.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut versions = BTreeSet::new();
    let mut ignored = Vec::new();
    for item in list.split(',') {
        match parse_go_int(item).and_then(|number| u32::try_from(number).ok()) {
            Some(version) => {
                versions.insert(AppProtocolVersion(version));
            }
            None => ignored.push(item.to_owned()),
        }
    }
    (versions.into_iter().collect(), ignored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn versions(numbers: &[u32]) -> BTreeSet<AppProtocolVersion> {
        numbers.iter().copied().map(AppProtocolVersion).collect()
    }

    fn read(variables: &[(&str, &str)]) -> PluginEnvironment {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        PluginEnvironment::read(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn the_host_sets_its_variables_in_a_fixed_order() {
        let cookie = MagicCookie::from(("COOKIE", "value"));
        let environment = HostEnvironment {
            cookie: Some(&cookie),
            ports: DEFAULT_PORT_RANGE,
            versions: &versions(&[10, 2]),
            mux: true,
            client_certificate_pem: Some("PEM\n"),
            socket_group: Some("staff"),
            socket_dir: Some("/tmp/plugin-dir1"),
        };
        let expected = [
            ("COOKIE", "value"),
            ("PLUGIN_MIN_PORT", "10000"),
            ("PLUGIN_MAX_PORT", "25000"),
            ("PLUGIN_PROTOCOL_VERSIONS", "2,10"),
            ("PLUGIN_MULTIPLEX_GRPC", "true"),
            ("PLUGIN_CLIENT_CERT", "PEM\n"),
            ("PLUGIN_UNIX_SOCKET_GROUP", "staff"),
            ("PLUGIN_UNIX_SOCKET_DIR", "/tmp/plugin-dir1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(environment.variables(), expected);
    }

    #[test]
    fn optional_variables_are_absent_rather_than_empty() {
        let cookie = MagicCookie::new("COOKIE", "value");
        let environment = HostEnvironment {
            cookie: Some(&cookie),
            ports: PortRange { min: 0, max: 0 },
            versions: &versions(&[]),
            mux: false,
            client_certificate_pem: None,
            socket_group: Some(""),
            socket_dir: None,
        };
        let names: Vec<_> = environment
            .variables()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names,
            ["COOKIE", ENV_MIN_PORT, ENV_MAX_PORT, ENV_PROTOCOL_VERSIONS]
        );
    }

    #[test]
    fn t38_what_a_nested_host_must_not_pass_on_is_exactly_what_is_optional() {
        let cookie = MagicCookie::new("COOKIE", "value");
        let everything = HostEnvironment {
            cookie: Some(&cookie),
            ports: DEFAULT_PORT_RANGE,
            versions: &versions(&[1]),
            mux: true,
            client_certificate_pem: Some("PEM\n"),
            socket_group: Some("staff"),
            socket_dir: Some("/tmp"),
        };
        let variables = everything.variables();
        let optional: Vec<_> = variables[4..]
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(optional, SCRUBBED);
    }

    #[test]
    fn p1_p2_the_cookie_decides_whether_a_plugin_serves() {
        let cookie = MagicCookie::new("COOKIE", "value");
        assert_eq!(cookie.check(|_| Some("value".to_owned())), Ok(()));
        for value in [None, Some(""), Some("Value"), Some("value ")] {
            let error = cookie.check(|_| value.map(str::to_owned)).unwrap_err();
            assert_eq!(error.code(), "cookie-mismatch", "{value:?}");
        }
        for cookie in [
            MagicCookie::new("", "value"),
            MagicCookie::new("COOKIE", ""),
        ] {
            let error = cookie.check(|_| Some(String::new())).unwrap_err();
            assert_eq!(error.code(), "cookie-not-configured");
        }
    }

    #[test]
    fn p3_t35_the_list_of_versions_may_be_unsorted_spoilt_empty_or_absent() {
        for (list, expected, ignored) in [
            ("3,1,2", &[1, 2, 3][..], &[][..]),
            ("2,2", &[2], &[]),
            ("1, 2,x,,3", &[1, 3], &[" 2", "x", ""]),
            ("+1,01", &[1], &[]),
            (
                "-1,4294967296,4294967295",
                &[u32::MAX],
                &["-1", "4294967296"],
            ),
            ("", &[], &[]),
        ] {
            let environment = read(&[(ENV_PROTOCOL_VERSIONS, list)]);
            let expected: Vec<_> = expected.iter().copied().map(AppProtocolVersion).collect();
            assert_eq!(environment.versions, expected, "{list}");
            assert_eq!(environment.ignored_versions, ignored, "{list}");
        }
        assert!(read(&[]).versions.is_empty());
    }

    #[test]
    fn p6_t36_any_value_asks_for_the_seventh_field_but_only_true_for_multiplexing() {
        for (value, field, mux) in [
            ("", false, false),
            ("true", true, true),
            ("1", true, true),
            ("T", true, true),
            ("false", true, false),
            ("0", true, false),
            ("garbage", true, false),
        ] {
            let environment = read(&[(ENV_MULTIPLEX_GRPC, value)]);
            assert_eq!(
                (environment.mux_field, environment.mux),
                (field, mux),
                "{value}"
            );
        }
    }

    #[test]
    fn ports_are_optional_and_an_empty_bound_is_zero() {
        let ports = |variables| read(variables).ports;
        assert_eq!(ports(&[]), Ok(None));
        assert_eq!(ports(&[(ENV_MIN_PORT, ""), (ENV_MAX_PORT, "")]), Ok(None));
        assert_eq!(
            ports(&[(ENV_MIN_PORT, "10000"), (ENV_MAX_PORT, "25000")]),
            Ok(Some(DEFAULT_PORT_RANGE))
        );
        assert_eq!(
            ports(&[(ENV_MAX_PORT, "7")]),
            Ok(Some(PortRange { min: 0, max: 7 }))
        );
        assert_eq!(
            ports(&[(ENV_MIN_PORT, "7")]).unwrap_err().code(),
            "port-range-reversed"
        );
    }

    #[test]
    fn every_environment_error_prints_one_phrase() {
        let shown = |min, max| PortRange::from_env(min, max).unwrap_err().to_string();
        insta::assert_snapshot!(
            shown("x\n", "1"),
            @r#"couldn't get value from PLUGIN_MIN_PORT: "x\n" is not a port number (0–65535)"#
        );
        insta::assert_snapshot!(
            shown("1", "70000"),
            @r#"couldn't get value from PLUGIN_MAX_PORT: "70000" is not a port number (0–65535)"#
        );
        insta::assert_snapshot!(
            shown("2", "1"),
            @"PLUGIN_MIN_PORT value of 2 is greater than PLUGIN_MAX_PORT value of 1"
        );
        assert_eq!(
            PortRange::from_env("x", "").unwrap_err().code(),
            "port-invalid"
        );
        insta::assert_snapshot!(
            MagicCookie::new("", "").check(|_| None).unwrap_err(),
            @"magic cookie of this plugin has no key or no value"
        );
        insta::assert_snapshot!(
            MagicCookie::new("KEY", "v").check(|_| None).unwrap_err(),
            @r#"environment variable "KEY" does not hold the magic cookie of this plugin"#
        );
    }

    proptest! {
        #[test]
        fn a_plugin_reads_what_its_host_wrote(
            numbers in proptest::collection::btree_set(any::<u32>(), 0..6),
            mux: bool,
            ports in (1..=u16::MAX).prop_flat_map(|min| (Just(min), min..=u16::MAX)),
            certificate in proptest::option::of("[a-zA-Z \n-]{1,40}"),
            group in proptest::option::of("[a-z0-9]{1,8}"),
            dir in proptest::option::of("/[a-z0-9/]{1,20}"),
        ) {
            let offered: BTreeSet<_> = numbers.into_iter().map(AppProtocolVersion).collect();
            let cookie = MagicCookie::new("COOKIE", "value");
            let variables: HashMap<_, _> = HostEnvironment {
                cookie: Some(&cookie),
                ports: PortRange { min: ports.0, max: ports.1 },
                versions: &offered,
                mux,
                client_certificate_pem: certificate.as_deref(),
                socket_group: group.as_deref(),
                socket_dir: dir.as_deref(),
            }
            .variables()
            .into_iter()
            .collect();
            let lookup = |name: &str| variables.get(name).cloned();
            prop_assert_eq!(cookie.check(lookup), Ok(()));
            prop_assert_eq!(PluginEnvironment::read(lookup), PluginEnvironment {
                versions: offered.into_iter().collect(),
                ignored_versions: Vec::new(),
                mux_field: mux,
                mux,
                client_certificate_pem: certificate,
                socket_group: group,
                socket_dir: dir.map(PathBuf::from),
                ports: Ok(Some(PortRange { min: ports.0, max: ports.1 })),
            });
        }
    }
}

//! What one plugin was granted: data for whoever enforces it, and verdicts on single operations.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::ser::{SerializeMap as _, SerializeStruct as _};
use serde::{Serialize, Serializer};

use crate::args::{ArgPattern, word_text};
use crate::ceiling::{Ceiling, RealPaths};
use crate::denial::{Denial, DenialKind};
use crate::entries::{args_text, exec_text, filesystem_text, network_text};
use crate::host::{AddressClass, Host, HostPattern, classify};
use crate::name::PluginName;
use crate::path::{Area, clean_absolute};
use crate::permissions::Permissions;
use crate::ports::Ports;
use crate::resources::Resources;
use crate::words::{
    Access, Capability, Direction, HostService, ProcessControl, Protocol, SandboxMode,
};

const NO_GRANT: &str = "no grant covers it";

/// Which request was granted, and the rule of the policy that allowed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(crate) request: Arc<str>,
    pub(crate) policy: Arc<str>,
}

impl Rule {
    /// Key path of the request in the manifest, such as `capabilities.filesystem[0]`.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request
    }

    /// The policy's rule, such as `policy default.allow.filesystem[1]`.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.request, self.policy)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything one plugin was granted. Only [`Policy::decide`](crate::Policy::decide) makes one.
///
/// Cloning is cheap. The verdicts are pure: they compare texts and know nothing of the machine,
/// so whoever carries an operation out must still find out where granted paths lead and ask about
/// that place, resolve paths beneath the granted directory, and connect to the very address that
/// was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Grants(Arc<Inner>);

#[derive(Debug, PartialEq)]
pub(crate) struct Inner {
    pub(crate) plugin: PluginName,
    /// The policy's rules about paths, which also hold where those lead.
    pub(crate) ceiling: Ceiling,
    pub(crate) filesystem: Vec<FilesystemGrant>,
    pub(crate) refused_filesystem: Vec<(FilesystemGrant, String)>,
    pub(crate) network: NetworkGrants,
    pub(crate) process: ProcessGrants,
    pub(crate) environment: EnvironmentGrants,
    pub(crate) services: Vec<(HostService, Rule)>,
    pub(crate) refused_services: Vec<(HostService, String)>,
    pub(crate) resources: Resources,
    pub(crate) sandbox: SandboxMode,
    pub(crate) jit: bool,
}

impl Grants {
    pub(crate) fn new(inner: Inner) -> Grants {
        Grants(Arc::new(inner))
    }

    /// Name of the plugin they belong to.
    #[must_use]
    pub fn plugin(&self) -> &str {
        self.0.plugin.as_str()
    }

    /// The granted parts of the file tree.
    #[must_use]
    pub fn filesystem(&self) -> &[FilesystemGrant] {
        &self.0.filesystem
    }

    /// Granted connections.
    #[must_use]
    pub fn network(&self) -> &NetworkGrants {
        &self.0.network
    }

    /// Granted commands and control over them.
    #[must_use]
    pub fn process(&self) -> &ProcessGrants {
        &self.0.process
    }

    /// Granted variables of the environment.
    #[must_use]
    pub fn environment(&self) -> &EnvironmentGrants {
        &self.0.environment
    }

    /// Limits on what the plugin uses.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.0.resources
    }

    /// How strictly the plugin must be confined.
    #[must_use]
    pub fn sandbox(&self) -> SandboxMode {
        self.0.sandbox
    }

    /// Whether the plugin may make machine code while it runs.
    #[must_use]
    pub fn jit(&self) -> bool {
        self.0.jit
    }

    /// The host services the plugin may call.
    pub fn services(&self) -> impl Iterator<Item = HostService> + '_ {
        self.0.services.iter().map(|(service, _)| *service)
    }

    /// Whether the plugin may call a host service at all.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn service(&self, service: HostService) -> Result<&Rule, Denial> {
        if let Some((_, rule)) = self
            .0
            .services
            .iter()
            .find(|(granted, _)| *granted == service)
        {
            return Ok(rule);
        }
        let refused = self
            .0
            .refused_services
            .iter()
            .find(|(refused, _)| *refused == service);
        Err(not_granted(
            Capability::Services,
            "call",
            service.as_str(),
            refused.map(|(_, rule)| rule.as_str()),
            Some(format!("services: [{service}]")),
        ))
    }

    /// Whether an operation that needs these permissions may be done on a path, and under which
    /// grant.
    ///
    /// The path must be absolute and without `..`. One grant must cover it with every permission
    /// needed: a recursive one covers its path and everything below, any other its path and the
    /// direct entries of that, which for a file is the file alone. `list` on a directory shows what
    /// is in it, so a grant that is not recursive gives it on its own path only. A grant carries the
    /// permissions of every grant that contains it, so overlapping ones add up. Of several that cover the
    /// path, the one with the longest path is returned, and of those with the same path a
    /// recursive one. Needing no permission is answered as if any were enough.
    ///
    /// The comparison is one of texts: the caller resolves the path beneath the grant's own
    /// directory, at most one level deep when the grant is not recursive.
    ///
    /// # Errors
    ///
    /// The denial, when no grant covers the path with all of `needs`.
    pub fn filesystem_verdict(
        &self,
        path: &Path,
        needs: Permissions,
    ) -> Result<&FilesystemGrant, Denial> {
        let operation = if needs.is_empty() {
            "use".to_owned()
        } else {
            needs.to_string()
        };
        let shown = path.to_string_lossy();
        let clean = clean_absolute(path).map_err(|why| Denial {
            kind: DenialKind::BadArgument,
            capability: Capability::Filesystem,
            operation: operation.clone(),
            argument: shown.clone().into_owned(),
            rule: why,
            missing: None,
        })?;
        let listed = !needs.contains(Permissions::LIST)
            || self.0.filesystem.iter().any(|grant| grant.lists(&clean));
        let fits = |grant: &&FilesystemGrant| {
            listed && grant.area().covers(&clean) && grant.permissions.contains(needs)
        };
        let mut best: Option<&FilesystemGrant> = None;
        for grant in self.0.filesystem.iter().filter(fits) {
            if best.is_none_or(|best| grant.rank() > best.rank()) {
                best = Some(grant);
            }
        }
        best.ok_or_else(|| {
            let refused = self.0.refused_filesystem.iter().find(|(refused, _)| {
                refused.area().covers(&clean) && !(refused.permissions & needs).is_empty()
            });
            let wanted = if needs.is_empty() {
                Permissions::READ
            } else {
                needs
            };
            let missing =
                filesystem_text(&clean.to_string_lossy(), wanted, false, Access::Mediated);
            not_granted(
                Capability::Filesystem,
                &operation,
                &shown,
                refused.map(|(_, rule)| rule.as_str()),
                Some(format!("capabilities.filesystem: {missing}")),
            )
        })
    }

    /// Whether the policy grants a part of the file tree where it really is: `place`, absolute
    /// and free of links, is where the grant's path leads. Ask this before the grant is served.
    ///
    /// A decision compares paths as they are written, and the same place may have other names:
    /// by links, by `/proc/self/root`. So nothing may be served at a place that a denial touches,
    /// or where no rule allows what is granted, whatever name led there. The rules' own paths
    /// count where they lead, a denial also as it is written.
    ///
    /// # Errors
    ///
    /// The denial, with the rule.
    pub fn filesystem_place(
        &self,
        grant: &FilesystemGrant,
        place: &Path,
        real: &dyn RealPaths,
    ) -> Result<(), Denial> {
        self.0.ceiling.filesystem_place(grant, place, real)
    }

    /// Whether the policy grants a command where its program really is. As
    /// [`Grants::filesystem_place`]: a denied program is denied by all its names.
    ///
    /// # Errors
    ///
    /// The denial, with the rule.
    pub fn exec_place(
        &self,
        grant: &ExecGrant,
        place: &Path,
        real: &dyn RealPaths,
    ) -> Result<(), Denial> {
        self.0.ceiling.exec_place(grant, place, real)
    }
}

fn not_granted(
    capability: Capability,
    operation: &str,
    argument: &str,
    refused: Option<&str>,
    missing: Option<String>,
) -> Denial {
    let (kind, rule) = match refused {
        Some(rule) => (DenialKind::RefusedByPolicy, rule.to_owned()),
        None => (DenialKind::NotGranted, NO_GRANT.to_owned()),
    };
    Denial {
        kind,
        capability,
        operation: operation.to_owned(),
        argument: argument.to_owned(),
        rule,
        missing,
    }
}

/// A granted part of the file tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemGrant {
    pub(crate) index: usize,
    pub(crate) path: PathBuf,
    pub(crate) permissions: Permissions,
    pub(crate) recursive: bool,
    pub(crate) access: Access,
    pub(crate) rule: Rule,
}

impl FilesystemGrant {
    /// Its place in [`Grants::filesystem`].
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The path, absolute and lexically clean.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What may be done there, including what grants that contain this one permit.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Whether everything below is granted, or only the path and its direct entries.
    #[must_use]
    pub fn recursive(&self) -> bool {
        self.recursive
    }

    /// Whether the plugin reaches it through the host or by itself. Direct grants are recursive.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Which request and rule it comes from.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether a clean absolute path lies in the granted part of the tree.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        self.area().covers(path)
    }

    pub(crate) fn area(&self) -> Area<'_> {
        Area {
            path: &self.path,
            recursive: self.recursive,
        }
    }

    /// Whether what is in the directory at a clean absolute path may be shown.
    fn lists(&self, path: &Path) -> bool {
        let whole = self.recursive || self.path == path;
        whole && self.covers(path) && self.permissions.contains(Permissions::LIST)
    }

    fn rank(&self) -> (usize, bool) {
        (self.path.components().count(), self.recursive)
    }

    pub(crate) fn text(&self) -> String {
        filesystem_text(
            &self.path.to_string_lossy(),
            self.permissions,
            self.recursive,
            self.access,
        )
    }
}

impl Serialize for FilesystemGrant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("FilesystemGrant", 5)?;
        state.serialize_field("path", &self.path.to_string_lossy())?;
        state.serialize_field("permissions", &self.permissions)?;
        state.serialize_field("recursive", &self.recursive)?;
        state.serialize_field("access", &self.access)?;
        state.serialize_field("rule", &self.rule)?;
        state.end()
    }
}

/// Granted connections with one host, network or wildcard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkGrant {
    pub(crate) protocol: Protocol,
    pub(crate) host: HostPattern,
    pub(crate) ports: Ports,
    pub(crate) rule: Rule,
}

impl NetworkGrant {
    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Who may be connected to; for ingress, who may connect.
    #[must_use]
    pub fn host(&self) -> &HostPattern {
        &self.host
    }

    /// The ports; for ingress, those listened on.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Which request and rule it comes from.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    fn fits(&self, protocol: Protocol, host: &Host, port: u16) -> bool {
        self.protocol == protocol && self.ports.contains(port) && self.host.matches(host)
    }
}

/// Addresses that a policy denies whatever name leads to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeniedAddresses {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) host: HostPattern,
    pub(crate) ports: Ports,
    pub(crate) rule: String,
}

/// A refused part of a network request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedNetwork {
    pub(crate) protocol: Protocol,
    pub(crate) host: HostPattern,
    pub(crate) ports: Ports,
    pub(crate) rule: String,
}

/// Granted connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkGrants {
    pub(crate) egress: Vec<NetworkGrant>,
    pub(crate) ingress: Vec<NetworkGrant>,
    pub(crate) denied: Vec<DeniedAddresses>,
    pub(crate) refused_egress: Vec<RefusedNetwork>,
    pub(crate) refused_ingress: Vec<RefusedNetwork>,
}

impl NetworkGrants {
    /// Connections that the plugin may open.
    #[must_use]
    pub fn egress_grants(&self) -> &[NetworkGrant] {
        &self.egress
    }

    /// Connections that may reach the plugin.
    #[must_use]
    pub fn ingress_grants(&self) -> &[NetworkGrant] {
        &self.ingress
    }

    /// Whether the plugin may connect to a host. Ask this before a name is resolved; then ask
    /// [`NetworkGrants::resolved`] about each address, and connect to one that passed.
    ///
    /// A name matches grants by name and wildcard only; an address only grants of that address
    /// or of a network it lies in.
    ///
    /// # Errors
    ///
    /// The denial, when no grant names the host with this protocol and port.
    pub fn egress(
        &self,
        protocol: Protocol,
        host: &Host,
        port: u16,
    ) -> Result<&NetworkGrant, Denial> {
        self.egress
            .iter()
            .find(|grant| grant.fits(protocol, host, port))
            .ok_or_else(|| {
                let refused = refused_network(&self.refused_egress, protocol, Some(host), port);
                egress_denial(protocol, host, port, refused)
            })
    }

    /// Whether the plugin may connect to an address that a granted name was resolved to, or to a
    /// granted address itself.
    ///
    /// A name may only lead to global addresses. To any other it may lead where a grant names
    /// that address or its network, with this protocol and port. Addresses that the policy denies
    /// are refused whatever name leads to them, and so is an IPv6 address that carries a denied
    /// IPv4 address inside (mapped, NAT64, 6to4, Teredo, ISATAP), also when it was asked for itself.
    ///
    /// # Errors
    ///
    /// The denial, when the host or the address is not granted.
    pub fn resolved(
        &self,
        protocol: Protocol,
        host: &Host,
        port: u16,
        address: IpAddr,
    ) -> Result<&NetworkGrant, Denial> {
        let by_host = self.egress(protocol, host, port)?;
        let address = address.to_canonical();
        let target = Host::Address(address);
        let argument = format!("{protocol} {host} at {address} port {port}");
        let bad = |rule: String, missing: Option<String>| Denial {
            kind: DenialKind::BadAddress,
            capability: Capability::Network,
            operation: Direction::Egress.as_str().to_owned(),
            argument: argument.clone(),
            rule,
            missing,
        };
        if let Host::Address(asked) = host
            && asked.to_canonical() != address
        {
            return Err(bad(
                "it is not the address that was asked for".to_owned(),
                None,
            ));
        }
        for denied in &self.denied {
            let speaks = denied.protocol.is_none_or(|mine| mine == protocol);
            if speaks && denied.ports.contains(port) && denied.host.denies(address) {
                return Err(bad(denied.rule.clone(), None));
            }
        }
        let class = classify(address);
        if class == AddressClass::Global {
            return Ok(by_host);
        }
        let by_address = self
            .egress
            .iter()
            .find(|grant| grant.fits(protocol, &target, port));
        by_address.ok_or_else(|| {
            let ports = Ports::from_ranges(vec![(port, port)]);
            let named = word_text(&address.to_string());
            let needed = network_text(Direction::Egress, protocol, &named, &ports);
            bad(
                format!("a name may only lead to global addresses, and this one is {class}"),
                Some(format!("capabilities.network.egress: {needed}")),
            )
        })
    }

    /// Whether the plugin may have a port listened on.
    ///
    /// # Errors
    ///
    /// The denial, when no grant names the port with this protocol.
    pub fn ingress(&self, protocol: Protocol, port: u16) -> Result<&NetworkGrant, Denial> {
        let fits = |grant: &&NetworkGrant| grant.protocol == protocol && grant.ports.contains(port);
        self.ingress.iter().find(fits).ok_or_else(|| {
            let refused = refused_network(&self.refused_ingress, protocol, None, port);
            ingress_denial(protocol, port, None, refused)
        })
    }

    /// The origins that may connect to a port, names included: those the host resolves itself.
    pub fn origins(&self, protocol: Protocol, port: u16) -> impl Iterator<Item = &HostPattern> {
        self.ingress
            .iter()
            .filter(move |grant| grant.protocol == protocol && grant.ports.contains(port))
            .map(|grant| &grant.host)
    }

    /// Whether a connection from an address may reach the plugin.
    ///
    /// `names` are granted names that the host's own resolver found to stand for this very
    /// address; names that the peer claims do not belong there.
    ///
    /// # Errors
    ///
    /// The denial, when no grant for this port lets the origin in.
    pub fn ingress_origin(
        &self,
        protocol: Protocol,
        port: u16,
        origin: IpAddr,
        names: &[crate::HostName],
    ) -> Result<&NetworkGrant, Denial> {
        self.ingress(protocol, port)?;
        let origin = Host::Address(origin.to_canonical());
        let named = |grant: &NetworkGrant| {
            names
                .iter()
                .any(|name| grant.fits(protocol, &Host::Name(name.clone()), port))
        };
        self.ingress
            .iter()
            .find(|grant| grant.fits(protocol, &origin, port) || named(grant))
            .ok_or_else(|| {
                let refused = refused_network(&self.refused_ingress, protocol, Some(&origin), port);
                ingress_denial(protocol, port, Some(&origin), refused)
            })
    }
}

fn refused_network<'r>(
    refused: &'r [RefusedNetwork],
    protocol: Protocol,
    host: Option<&Host>,
    port: u16,
) -> Option<&'r str> {
    refused
        .iter()
        .find(|refused| {
            refused.protocol == protocol
                && refused.ports.contains(port)
                && host.is_none_or(|host| refused.host.matches(host))
        })
        .map(|refused| refused.rule.as_str())
}

fn egress_denial(protocol: Protocol, host: &Host, port: u16, refused: Option<&str>) -> Denial {
    let ports = Ports::from_ranges(vec![(port, port)]);
    let named = word_text(&host.to_string());
    let missing = network_text(Direction::Egress, protocol, &named, &ports);
    not_granted(
        Capability::Network,
        Direction::Egress.as_str(),
        &format!("{protocol} {host} port {port}"),
        refused,
        Some(format!("capabilities.network.egress: {missing}")),
    )
}

fn ingress_denial(
    protocol: Protocol,
    port: u16,
    origin: Option<&Host>,
    refused: Option<&str>,
) -> Denial {
    let ports = Ports::from_ranges(vec![(port, port)]);
    let (argument, hosts) = match origin {
        Some(origin) => (
            format!("{protocol} port {port} from {origin}"),
            word_text(&origin.to_string()),
        ),
        None => (format!("{protocol} port {port}"), "…".to_owned()),
    };
    let missing = network_text(Direction::Ingress, protocol, &hosts, &ports);
    not_granted(
        Capability::Network,
        Direction::Ingress.as_str(),
        &argument,
        refused,
        Some(format!("capabilities.network.ingress: {missing}")),
    )
}

/// A granted command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecGrant {
    pub(crate) command: PathBuf,
    pub(crate) args: ArgPattern,
    pub(crate) rule: Rule,
}

impl ExecGrant {
    /// The program, as an absolute, lexically clean path.
    #[must_use]
    pub fn command(&self) -> &Path {
        &self.command
    }

    /// The arguments it may be run with.
    #[must_use]
    pub fn args(&self) -> &ArgPattern {
        &self.args
    }

    /// Which request and rule it comes from.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
}

impl Serialize for ExecGrant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("ExecGrant", 3)?;
        state.serialize_field("command", &self.command.to_string_lossy())?;
        state.serialize_field("args", &self.args)?;
        state.serialize_field("rule", &self.rule)?;
        state.end()
    }
}

/// Granted commands, and control over the processes the plugin started with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessGrants {
    pub(crate) exec: Vec<ExecGrant>,
    pub(crate) control: Vec<(ProcessControl, Rule)>,
    pub(crate) refused_exec: Vec<(PathBuf, ArgPattern, String)>,
    pub(crate) refused_control: Vec<(ProcessControl, String)>,
}

impl ProcessGrants {
    /// The commands that may be run.
    #[must_use]
    pub fn exec_grants(&self) -> &[ExecGrant] {
        &self.exec
    }

    /// Whether a command may be run with these arguments, the program's own name not counted.
    ///
    /// # Errors
    ///
    /// The denial, when no grant names the command with such arguments.
    pub fn exec<S: AsRef<str>>(
        &self,
        command: &str,
        arguments: &[S],
    ) -> Result<&ExecGrant, Denial> {
        let shown = format!("{command} {}", args_text(arguments));
        let clean = clean_absolute(Path::new(command)).map_err(|why| Denial {
            kind: DenialKind::BadArgument,
            capability: Capability::Process,
            operation: "exec".to_owned(),
            argument: shown.clone(),
            rule: why,
            missing: None,
        })?;
        self.exec
            .iter()
            .find(|grant| grant.command == clean && grant.args.matches(arguments))
            .ok_or_else(|| {
                let refused = self
                    .refused_exec
                    .iter()
                    .find(|(path, args, _)| *path == clean && args.matches(arguments));
                let missing = exec_text(&clean.to_string_lossy(), &args_text(arguments));
                not_granted(
                    Capability::Process,
                    "exec",
                    &shown,
                    refused.map(|(_, _, rule)| rule.as_str()),
                    Some(format!("capabilities.process.exec: {missing}")),
                )
            })
    }

    /// Whether the plugin may do this to processes it started; never to any other.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn control(&self, control: ProcessControl) -> Result<&Rule, Denial> {
        if let Some((_, rule)) = self.control.iter().find(|(granted, _)| *granted == control) {
            return Ok(rule);
        }
        let refused = self
            .refused_control
            .iter()
            .find(|(refused, _)| *refused == control);
        Err(not_granted(
            Capability::Process,
            control.as_str(),
            "children",
            refused.map(|(_, rule)| rule.as_str()),
            Some(format!("capabilities.process.{control}: [children]")),
        ))
    }

    /// Whether the plugin may end processes it started.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn kill(&self) -> Result<&Rule, Denial> {
        self.control(ProcessControl::Kill)
    }

    /// Whether the plugin may see the processes it started.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn list(&self) -> Result<&Rule, Denial> {
        self.control(ProcessControl::List)
    }

    /// Whether the plugin may send signals to processes it started.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn signal(&self) -> Result<&Rule, Denial> {
        self.control(ProcessControl::Signal)
    }
}

/// Granted variables of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentGrants {
    pub(crate) read: Vec<(String, Rule)>,
    pub(crate) set: Vec<(String, String)>,
    pub(crate) refused: Vec<(String, String)>,
}

impl EnvironmentGrants {
    /// Whether the plugin may read a variable of the host's environment.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn read(&self, name: &str) -> Result<&Rule, Denial> {
        if let Some((_, rule)) = self.read.iter().find(|(granted, _)| granted == name) {
            return Ok(rule);
        }
        let refused = self.refused.iter().find(|(refused, _)| refused == name);
        let needed = word_text(name);
        Err(not_granted(
            Capability::Environment,
            "read",
            name,
            refused.map(|(_, rule)| rule.as_str()),
            Some(format!("capabilities.environment.read: [{needed}]")),
        ))
    }

    /// Names of the variables that may be read, in the manifest's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.read.iter().map(|(name, _)| name.as_str())
    }

    /// Variables to put into the plugin's own environment, in the manifest's order.
    pub fn set(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A readable form: every grant with the request and rule it comes from.
impl Serialize for Grants {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Network<'g> {
            egress: &'g [NetworkGrant],
            ingress: &'g [NetworkGrant],
        }
        #[derive(Serialize)]
        struct Process<'g> {
            exec: &'g [ExecGrant],
            children: Vec<ProcessControl>,
        }
        struct Set<'g>(&'g EnvironmentGrants);
        impl Serialize for Set<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.set())
            }
        }
        #[derive(Serialize)]
        struct Environment<'g> {
            read: Vec<&'g str>,
            set: Set<'g>,
        }
        let inner = &*self.0;
        let mut map = serializer.serialize_map(Some(9))?;
        map.serialize_entry("plugin", &inner.plugin)?;
        map.serialize_entry("filesystem", &inner.filesystem)?;
        let network = Network {
            egress: &inner.network.egress,
            ingress: &inner.network.ingress,
        };
        map.serialize_entry("network", &network)?;
        let children = inner
            .process
            .control
            .iter()
            .map(|(control, _)| *control)
            .collect();
        map.serialize_entry(
            "process",
            &Process {
                exec: &inner.process.exec,
                children,
            },
        )?;
        let environment = Environment {
            read: inner.environment.names().collect(),
            set: Set(&inner.environment),
        };
        map.serialize_entry("environment", &environment)?;
        map.serialize_entry("services", &self.services().collect::<Vec<_>>())?;
        map.serialize_entry("resources", &inner.resources)?;
        map.serialize_entry("sandbox", &inner.sandbox)?;
        map.serialize_entry("jit", &inner.jit)?;
        map.end()
    }
}

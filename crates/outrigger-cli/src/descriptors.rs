//! What a plugin's descriptors say, and types made from them.
//!
//! A plugin controls every byte of its descriptors. Listing reads the plain
//! messages; only a call builds types from them, behind checks.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};
use prost_types::{FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto};
use serde::Serialize;

use crate::failure::{Exit, Failure, near, printable};
use crate::reflection::{Description, ReflectionVersion, Undescribed};

/// The most that is read of a file with descriptors, in bytes.
const MOST_DESCRIPTORS: u64 = 64 << 20;

/// The name of one method, as given on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MethodName {
    pub(crate) service: String,
    pub(crate) method: String,
}

impl std::str::FromStr for MethodName {
    type Err = String;

    /// `package.Service/Method`; a leading `/` and a `.` before the method, as
    /// net/rpc has it, are taken as well.
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        let (service, method) = bare
            .split_once('/')
            .or_else(|| bare.rsplit_once('.'))
            .ok_or("expected PACKAGE.SERVICE/METHOD, or SERVICE.METHOD for net/rpc")?;
        let good = |name: &str, dots: bool| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || c == '_' || dots && c == '.')
        };
        if !good(service, true) || !good(method, false) {
            return Err("expected PACKAGE.SERVICE/METHOD, or SERVICE.METHOD for net/rpc".into());
        }
        Ok(Self {
            service: service.to_owned(),
            method: method.to_owned(),
        })
    }
}

impl MethodName {
    /// As net/rpc writes it: `Plugin.Speak`.
    pub(crate) fn dotted(&self) -> String {
        format!("{}.{}", self.service, self.method)
    }
}

impl std::fmt::Display for MethodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.method)
    }
}

/// One service as listed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ListedService {
    /// Full name.
    pub(crate) name: String,
    /// The file that defines it; absent when the plugin does not describe it.
    pub(crate) file: Option<String>,
    pub(crate) methods: Vec<ListedMethod>,
}

/// One method as listed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ListedMethod {
    pub(crate) name: String,
    /// `unary`, `client-stream`, `server-stream` or `bidi-stream`.
    pub(crate) kind: &'static str,
    /// Full name of the request message.
    pub(crate) request: String,
    /// Full name of the reply message.
    pub(crate) reply: String,
}

/// What is known about the services of a plugin.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    /// Which reflection service told it; absent when the plugin has none.
    pub(crate) version: Option<ReflectionVersion>,
    pub(crate) services: Vec<String>,
    pub(crate) files: FileDescriptorSet,
    pub(crate) undescribed: Vec<Undescribed>,
}

impl From<Description> for Catalogue {
    fn from(description: Description) -> Self {
        Self {
            version: Some(description.version),
            services: description.services,
            files: description.files,
            undescribed: description.undescribed,
        }
    }
}

impl Catalogue {
    /// The services of a plugin without reflection: those that every gRPC plugin has.
    pub(crate) fn standard(files: FileDescriptorSet) -> Self {
        let services = files
            .file
            .iter()
            .flat_map(services_of)
            .filter(|name| !name.starts_with("grpc.reflection."))
            .collect();
        Self {
            version: None,
            services,
            files,
            undescribed: Vec::new(),
        }
    }
}

/// What to do where a plugin does not describe something.
const FROM_FILE: &str = "give its descriptors with `--descriptors FILE`; \
     `protoc --include_imports --descriptor_set_out=FILE` writes them from the proto files";

/// Descriptors that `protoc` wrote to a file.
///
/// # Errors
/// `descriptors-unreadable`.
pub(crate) fn from_file(path: &std::path::Path) -> Result<Catalogue, Failure> {
    let failed = |reason: String| {
        let message = format!(
            "no descriptors could be read from `{}` (`--descriptors`)",
            printable(&path.display().to_string())
        );
        Failure::usage("descriptors-unreadable", message)
            .note(reason)
            .help("`protoc --include_imports --descriptor_set_out=FILE` writes them")
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_DESCRIPTORS).read_to_end(&mut bytes))
        .map_err(|error| failed(error.to_string()))?;
    let files = FileDescriptorSet::decode(bytes.as_slice())
        .map_err(|error| failed(printable(&error.to_string())))?;
    Ok(Catalogue::standard(files))
}

/// The services of a plugin with their methods, from the descriptors alone.
pub(crate) fn list(description: &Catalogue) -> Vec<ListedService> {
    let known: HashMap<String, (&FileDescriptorProto, &[MethodDescriptorProto])> = description
        .files
        .file
        .iter()
        .flat_map(|file| {
            file.service
                .iter()
                .map(move |s| (join(file.package(), s.name()), (file, s.method.as_slice())))
        })
        .collect();
    let listed = |name: &String| match known.get(name) {
        Some((file, methods)) => ListedService {
            name: name.clone(),
            file: Some(file.name().to_owned()),
            methods: methods.iter().map(listed_method).collect(),
        },
        None => ListedService {
            name: name.clone(),
            file: None,
            methods: Vec::new(),
        },
    };
    description.services.iter().map(listed).collect()
}

fn listed_method(method: &MethodDescriptorProto) -> ListedMethod {
    ListedMethod {
        name: method.name().to_owned(),
        kind: kind(method.client_streaming(), method.server_streaming()),
        request: method.input_type().trim_start_matches('.').to_owned(),
        reply: method.output_type().trim_start_matches('.').to_owned(),
    }
}

/// The word for a kind of method.
pub(crate) fn kind(client_streaming: bool, server_streaming: bool) -> &'static str {
    match (client_streaming, server_streaming) {
        (false, false) => "unary",
        (true, false) => "client-stream",
        (false, true) => "server-stream",
        (true, true) => "bidi-stream",
    }
}

/// The service of this name, whether or not the plugin serves it, with its types.
///
/// # Errors
/// `serve-undescribed`, and as [`method`] when no types can be made.
pub(crate) fn service(description: &Catalogue, wanted: &str) -> Result<ServiceDescriptor, Failure> {
    let known = crate::contracts::all()?;
    for files in [&description.files, &known] {
        let file = files.file.iter().find(|file| {
            let mut services = file.service.iter();
            services.any(|service| join(file.package(), service.name()) == wanted)
        });
        if let Some(file) = file {
            let found = pool(files, file.name())?.get_service_by_name(wanted);
            return found.ok_or_else(|| invalid("the service is lost among them"));
        }
    }
    let wanted = printable(wanted);
    let message = format!("the types of `{wanted}` (`--serve`) are not known");
    let failure = Failure::usage("serve-undescribed", message)
        .note("neither the plugin describes this service nor is it a published one");
    let names: Vec<String> = description
        .files
        .file
        .iter()
        .flat_map(services_of)
        .collect();
    let failure = match near(&wanted, names.iter().map(String::as_str)).first() {
        Some(near) => failure.help(format!("did you mean `{}`?", printable(near))),
        None => failure,
    };
    Err(failure.help(FROM_FILE))
}

/// The full names of the services that a file defines.
fn services_of(file: &FileDescriptorProto) -> impl Iterator<Item = String> {
    file.service
        .iter()
        .map(|service| join(file.package(), service.name()))
}

/// The method of a service that introduces the plugin to its host, if it has one.
pub(crate) fn introduction(description: &Catalogue, service: &str) -> Option<MethodName> {
    let services = list(description);
    let own = services.iter().find(|own| own.name == service)?;
    let method = own.methods.iter().find(|method| {
        let name = method.name.to_lowercase();
        method.kind == "unary" && (name.contains("hostservice") || name.contains("establish"))
    })?;
    Some(MethodName {
        service: service.to_owned(),
        method: method.name.clone(),
    })
}

/// Finds a method among what the plugin describes and builds its types.
///
/// # Errors
/// `unknown-service`, `unknown-method` with the nearest names;
/// `service-undescribed` when the plugin names the service only;
/// `descriptors-unsupported` and `descriptors-invalid` when no types can be made.
pub(crate) fn method(
    description: &Catalogue,
    wanted: &MethodName,
) -> Result<MethodDescriptor, Failure> {
    let services = list(description);
    let service = services
        .iter()
        .find(|service| service.name == wanted.service)
        .ok_or_else(|| unknown_service(description, &services, wanted))?;
    let Some(file) = &service.file else {
        return Err(undescribed(description, wanted));
    };
    if !service
        .methods
        .iter()
        .any(|method| method.name == wanted.method)
    {
        return Err(unknown_method(&services, service, wanted));
    }
    let pool = pool(&description.files, file)?;
    pool.get_service_by_name(&wanted.service)
        .and_then(|service| {
            service
                .methods()
                .find(|method| method.name() == wanted.method)
        })
        .ok_or_else(|| invalid("the method is lost among them"))
}

fn unknown_service(
    description: &Catalogue,
    services: &[ListedService],
    wanted: &MethodName,
) -> Failure {
    if description.version.is_none() {
        let names: Vec<String> = services.iter().map(|s| s.name.clone()).collect();
        return Failure::new(
            Exit::Failed,
            "reflection-not-served",
            format!(
                "`{}` cannot be called because the plugin does not serve reflection",
                printable(&wanted.service)
            ),
        )
        .note(format!(
            "known without reflection are only {}",
            shortened(&names, 12)
        ))
        .help(FROM_FILE)
        .help(
            "or have the plugin register the gRPC reflection service; go-plugin's own servers do",
        );
    }
    let failure = Failure::usage(
        "unknown-service",
        format!("the plugin has no service `{}`", printable(&wanted.service)),
    );
    suggest(failure, services, wanted)
}

fn unknown_method(
    services: &[ListedService],
    service: &ListedService,
    wanted: &MethodName,
) -> Failure {
    let names: Vec<String> = service.methods.iter().map(|m| printable(&m.name)).collect();
    let failure = Failure::usage(
        "unknown-method",
        format!(
            "service `{}` has no method `{}`",
            printable(&wanted.service),
            printable(&wanted.method)
        ),
    )
    .note(format!("it has {}", shortened(&names, 12)));
    suggest(failure, services, wanted)
}

fn suggest(failure: Failure, services: &[ListedService], wanted: &MethodName) -> Failure {
    // The method by the same name in another service, such as another version of it, comes first.
    let same: Vec<String> = services
        .iter()
        .filter(|s| s.methods.iter().any(|m| m.name == wanted.method))
        .map(|s| printable(&format!("{}/{}", s.name, wanted.method)))
        .take(3)
        .collect();
    if !same.is_empty() {
        let same: Vec<&str> = same.iter().map(String::as_str).collect();
        return failure.help(format!("did you mean {}?", alternatives(&same)));
    }
    let all: Vec<String> = services
        .iter()
        .flat_map(|s| {
            s.methods
                .iter()
                .map(|m| printable(&format!("{}/{}", s.name, m.name)))
        })
        .collect();
    let near = near(&wanted.to_string(), all.iter().map(String::as_str));
    if !near.is_empty() {
        return failure.help(format!("did you mean {}?", alternatives(&near)));
    }
    let names: Vec<String> = services.iter().map(|s| printable(&s.name)).collect();
    failure
        .note(format!("its services are {}", shortened(&names, 12)))
        .help("`outrigger inspect` lists the services with their methods")
}

fn alternatives(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(" or ")
}

/// At most `most` of `names`, and how many more there are.
pub(crate) fn shortened(names: &[String], most: usize) -> String {
    let shown = names
        .iter()
        .take(most)
        .map(|n| format!("`{n}`"))
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(most) {
        0 if names.is_empty() => "none".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn undescribed(description: &Catalogue, wanted: &MethodName) -> Failure {
    let failure = Failure::new(
        Exit::Failed,
        "service-undescribed",
        format!(
            "the plugin has a service `{}` but does not describe it",
            printable(&wanted.service)
        ),
    );
    match description
        .undescribed
        .iter()
        .find(|u| u.name == wanted.service)
    {
        Some(reason) => failure.note(format!("its reason: {}", printable(&reason.reason))),
        None => failure,
    }
    .help(FROM_FILE)
    .help("or have the plugin register the descriptor of the service for reflection")
}

/// Types of the file `wanted`, what it imports, and what else of `files` is sound.
fn pool(files: &FileDescriptorSet, wanted: &str) -> Result<DescriptorPool, Failure> {
    let files = with_imports_repaired(files);
    let (needed, rest) = partition(&files, wanted);
    if let Some(file) = needed.iter().find(|file| !readable(file)) {
        return Err(Failure::new(
            Exit::Failed,
            "descriptors-unsupported",
            format!(
                "{} is written in syntax {}, which this release does not read",
                quoted(file.name()),
                quoted(file.syntax())
            ),
        )
        .note("proto2 and proto3 are read; protobuf editions are not"));
    }
    let pool = add(DescriptorPool::new(), needed)?;
    Ok(with_others(
        pool,
        rest.into_iter().filter(readable).collect(),
    ))
}

/// Adds files that the call does not need: `google.protobuf.Any` may hold their messages.
fn with_others(pool: DescriptorPool, files: Vec<FileDescriptorProto>) -> DescriptorPool {
    /// Each attempt copies the pool, so that an unsound file costs only itself.
    const MOST_SINGLE_ATTEMPTS: usize = 64;
    if let Ok(all) = add(pool.clone(), files.clone()) {
        return all;
    }
    files
        .into_iter()
        .take(MOST_SINGLE_ATTEMPTS)
        .fold(pool, |pool, file| {
            add(pool.clone(), vec![file]).unwrap_or(pool)
        })
}

fn readable(file: &FileDescriptorProto) -> bool {
    matches!(file.syntax(), "" | "proto2" | "proto3")
}

fn add(
    mut pool: DescriptorPool,
    files: Vec<FileDescriptorProto>,
) -> Result<DescriptorPool, Failure> {
    let built = guarded(move || pool.add_file_descriptor_protos(files).map(|()| pool));
    match built {
        Some(Ok(pool)) => Ok(pool),
        Some(Err(error)) => Err(invalid(&printable(&error.to_string()))),
        None => Err(invalid("they contradict themselves")),
    }
}

fn invalid(reason: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        "descriptors-invalid",
        "no types can be made from the plugin's descriptors",
    )
    .note(reason.to_owned())
}

/// Runs `work` and gives nothing when it panics, without a word on stderr.
///
/// The dynamic message library asserts what descriptors should guarantee; here
/// a plugin wrote them.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    thread_local! {
        static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.ok()
}

/// The files with each import that leads nowhere pointed at the file that must be meant.
///
/// Go registers a file under the path it was compiled with while others import
/// it by another; the well-known files are often left out altogether.
fn with_imports_repaired(files: &FileDescriptorSet) -> Vec<FileDescriptorProto> {
    let mut files = files.file.clone();
    let mut names: HashSet<String> = files.iter().map(|f| f.name().to_owned()).collect();
    let missing: BTreeSet<String> = files
        .iter()
        .flat_map(|file| {
            file.dependency
                .iter()
                .filter(|import| !names.contains(*import))
        })
        .cloned()
        .collect();
    let mut replacements = HashMap::new();
    for import in missing {
        if let Some(known) = DescriptorPool::global().get_file_by_name(&import) {
            names.insert(import);
            files.push(known.file_descriptor_proto().clone());
        } else if let Some(meant) = same_file(&import, &names) {
            replacements.insert(import, meant);
        }
    }
    for import in files.iter_mut().flat_map(|file| &mut file.dependency) {
        if let Some(meant) = replacements.get(import) {
            *import = meant.clone();
        }
    }
    files
}

/// The only file whose path ends like `import`, or whose path `import` ends with.
fn same_file(import: &str, names: &HashSet<String>) -> Option<String> {
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short)
            .is_some_and(|rest| rest.ends_with('/'))
    };
    let mut same = names
        .iter()
        .filter(|name| ends(name, import) || ends(import, name));
    match (same.next(), same.next()) {
        (Some(name), None) => Some(name.clone()),
        _ => None,
    }
}

/// `wanted` and everything it imports, and the rest in an order that can be added one by one.
fn partition(
    files: &[FileDescriptorProto],
    wanted: &str,
) -> (Vec<FileDescriptorProto>, Vec<FileDescriptorProto>) {
    let by_name: HashMap<&str, &FileDescriptorProto> =
        files.iter().map(|file| (file.name(), file)).collect();
    let mut ordered = Vec::new();
    let mut seen = HashSet::new();
    visit(wanted, &by_name, &mut seen, &mut ordered);
    let needed = ordered.len();
    for file in files {
        visit(file.name(), &by_name, &mut seen, &mut ordered);
    }
    let rest = ordered.split_off(needed);
    (ordered, rest)
}

/// Appends what `from` imports, then `from`; without recursion, as a peer chose the depth.
fn visit<'a>(
    from: &'a str,
    by_name: &HashMap<&'a str, &'a FileDescriptorProto>,
    seen: &mut HashSet<&'a str>,
    ordered: &mut Vec<FileDescriptorProto>,
) {
    let mut stack = Vec::new();
    if seen.insert(from) {
        stack.push((from, 0));
    }
    while let Some((name, next)) = stack.pop() {
        let Some(file) = by_name.get(name) else {
            continue;
        };
        match file.dependency.get(next) {
            Some(import) => {
                stack.push((name, next + 1));
                if seen.insert(import) {
                    stack.push((import, 0));
                }
            }
            None => ordered.push((*file).clone()),
        }
    }
}

fn quoted(text: &str) -> String {
    outrigger_wire::Excerpt::new(text.as_bytes()).to_string()
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{DescriptorProto, ServiceDescriptorProto};

    use super::*;

    fn file(name: &str, syntax: &str, imports: &[&str]) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.into()),
            package: Some("p".into()),
            syntax: Some(syntax.into()),
            dependency: imports.iter().map(|i| (*i).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn message(name: &str) -> DescriptorProto {
        DescriptorProto {
            name: Some(name.into()),
            ..Default::default()
        }
    }

    fn service(input: &str) -> ServiceDescriptorProto {
        ServiceDescriptorProto {
            name: Some("Api".into()),
            method: vec![MethodDescriptorProto {
                name: Some("Do".into()),
                input_type: Some(input.into()),
                output_type: Some(input.into()),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn build(files: Vec<FileDescriptorProto>) -> Result<DescriptorPool, Failure> {
        pool(&FileDescriptorSet { file: files }, "api.proto")
    }

    #[test]
    fn method_names_are_read_in_the_forms_that_tools_print() {
        let name = MethodName {
            service: "a.b.C".into(),
            method: "D".into(),
        };
        for text in ["a.b.C/D", "/a.b.C/D", "a.b.C.D"] {
            assert_eq!(text.parse(), Ok(name.clone()), "{text}");
        }
        for text in ["", "a", "a/", "/a", "a.b.C/D/E", "a b/C"] {
            assert!(text.parse::<MethodName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_in_an_edition_is_a_typed_error_and_no_panic() {
        let mut api = file("api.proto", "editions", &[]);
        api.message_type.push(message("M"));
        api.service.push(service(".p.M"));
        let failure = build(vec![api]).expect_err("unsupported");
        assert_eq!(failure.code, "descriptors-unsupported");
    }

    #[test]
    fn a_file_in_an_edition_that_is_not_needed_does_no_harm() {
        let mut api = file("api.proto", "proto3", &[]);
        api.message_type.push(message("M"));
        api.service.push(service(".p.M"));
        let pool = build(vec![file("z.proto", "editions", &[]), api]).expect("a pool");
        assert!(pool.get_service_by_name("p.Api").is_some());
    }

    #[test]
    fn an_import_by_another_path_is_found_by_its_ending() {
        let mut types = file("some/where/types.proto", "proto3", &[]);
        types.message_type.push(message("M"));
        let mut api = file("api.proto", "proto3", &["types.proto"]);
        api.service.push(service(".p.M"));
        let pool = build(vec![api, types]).expect("a pool");
        assert!(pool.get_message_by_name("p.M").is_some());
    }

    #[test]
    fn well_known_files_that_the_plugin_leaves_out_are_supplied() {
        let mut api = file("api.proto", "proto3", &["google/protobuf/timestamp.proto"]);
        api.service.push(service(".google.protobuf.Timestamp"));
        assert!(build(vec![api]).is_ok());
    }

    #[test]
    fn descriptors_that_contradict_themselves_are_a_typed_error() {
        let mut api = file("api.proto", "proto3", &["api.proto", "gone.proto"]);
        api.service.push(service(".p.Missing"));
        assert_eq!(
            build(vec![api]).expect_err("invalid").code,
            "descriptors-invalid"
        );
    }

    #[test]
    fn a_panic_in_guarded_work_is_no_result() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| -> u8 { panic!("unsound") }), None);
    }
}

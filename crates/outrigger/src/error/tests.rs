//! An example of each kind of error, as it is made and shown.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use outrigger_testing::{program, write_script};
use tempfile::TempDir;

use super::*;
use crate::{Configure, Plugin, Plugins, Policy, Restart, Settings, Supervision, Trust, semver};

const KINDS: usize = 33;

/// A number for each kind; a new one is missing here until it has an example below.
fn number_of(kind: &ErrorKind) -> usize {
    match kind {
        ErrorKind::Place(_) => 0,
        ErrorKind::Refused { .. } => 1,
        ErrorKind::Launch(_) => 2,
        ErrorKind::NotApproved { .. } => 26,
        ErrorKind::NotExpected { .. } => 27,
        ErrorKind::Lock(_) => 28,
        ErrorKind::Registry(error) => match error.kind() {
            RegistryErrorKind::Folder { .. } => 3,
            RegistryErrorKind::PluginFolder { .. } => 4,
            RegistryErrorKind::Unreadable { .. } => 5,
            RegistryErrorKind::Invalid(..) => 6,
            RegistryErrorKind::Unknown { .. } => 7,
            RegistryErrorKind::NameTaken { .. } => 8,
            RegistryErrorKind::Entrypoint { .. } => 9,
            RegistryErrorKind::Unusable { .. } => 10,
            RegistryErrorKind::NotExecutable { .. } => 11,
            RegistryErrorKind::ChecksumUnreadable { .. } => 12,
            RegistryErrorKind::Checksum { .. } => 13,
            RegistryErrorKind::Digest { .. } => 14,
            RegistryErrorKind::ChecksumMissing { .. } => 15,
            RegistryErrorKind::Version { .. } => 18,
            RegistryErrorKind::Unsatisfied { .. } => 19,
            RegistryErrorKind::NoEarlier { .. } => 20,
            RegistryErrorKind::Signature { .. } => 31,
            _ => KINDS,
        },
        ErrorKind::ConfigurationUnreadable { .. } => 16,
        ErrorKind::Configuration(_) => 17,
        ErrorKind::NotServing { .. } => 21,
        ErrorKind::Stopped { .. } => 22,
        ErrorKind::Failed { .. } => 23,
        ErrorKind::Dispense(_) => 24,
        ErrorKind::ShutDown => 25,
        ErrorKind::ServiceName(_) => 29,
        ErrorKind::SelfTest { .. } => 30,
        ErrorKind::PluginConfig(_) => 32,
    }
}

/// A folder in which the plugin `dog` has the folder `dog`.
struct Kennel(TempDir);

impl Kennel {
    fn new() -> Self {
        let kennel = Self(tempfile::tempdir().expect("a folder"));
        kennel.add("dog", "");
        kennel
    }

    /// Adds a folder with a plugin `dog` that asks for these capabilities.
    fn add(&self, folder: &str, capabilities: &str) {
        let manifest = format!(
            "plugin: {{name: dog, format: grpc, entrypoint: dog}}\n\
             handshake: {{protocol_version: 1, magic_cookie_key: DOG, magic_cookie_value: x}}\n\
             capabilities: {{{capabilities}}}\n"
        );
        fs::create_dir_all(self.path(folder)).expect("a plugin's folder");
        let program = self.path(&format!("{folder}/dog"));
        fs::write(&program, "").expect("a file");
        fs::set_permissions(&program, Permissions::from_mode(0o644)).expect("its mode");
        self.write(&format!("{folder}/manifest.yaml"), &manifest);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    fn dog(&self) -> Plugin {
        Plugin::open(self.path("dog")).expect("a plugin")
    }

    /// All that is said of an error, with `DIR` for the folder of the plugins.
    fn all_of(&self, error: &Error) -> String {
        let mut lines = vec![format!("[{}] {error}", error.code())];
        lines.extend(error.details().iter().map(|line| format!("  {line}")));
        lines.extend(error.hint().iter().map(|hint| format!("  help: {hint}")));
        let folder = fs::canonicalize(self.0.path()).expect("it is there");
        lines
            .join("\n")
            .replace(&folder.display().to_string(), "DIR")
    }
}

/// An example of each kind, made by what makes it.
async fn examples() -> Vec<(Error, String)> {
    let mut examples = Vec::new();
    let mut example = |kennel: &Kennel, error: Error| {
        let text = kennel.all_of(&error);
        examples.push((error, text));
    };

    let kennel = Kennel::new();
    let missing = Plugins::open(kennel.path("missing"));
    example(&kennel, missing.expect_err("no such folder"));
    kennel.rename("dog/manifest.yaml", "dog/manifst.yaml");
    let unnamed = Plugin::open(kennel.path("dog"));
    example(&kennel, unnamed.expect_err("no manifest"));
    kennel.write("dog/manifest.yaml", "plugin: {nme: dog}");
    let invalid = Plugin::open(kennel.path("dog"));
    example(&kennel, invalid.expect_err("no name"));
    let policy = Settings::new().policy_file(kennel.path("dog"));
    example(&kennel, policy.expect_err("no policy"));
    kennel.write("policy.yaml", "default: {alow: requested}");
    let policy = Settings::new().policy_file(kennel.0.path());
    example(&kennel, policy.expect_err("a misspelt key"));

    let kennel = Kennel::new();
    let configured = || {
        let settings = Settings::new().config_dir(kennel.0.path());
        let plugin = settings.open_plugin(kennel.path("dog"))?;
        plugin.config().map(drop)
    };
    fs::create_dir(kennel.path("dog.yaml")).expect("a folder");
    example(&kennel, configured().expect_err("no file"));
    fs::remove_dir(kennel.path("dog.yaml")).expect("removed");
    kennel.write(
        "dog.yaml",
        "volume: loud\nnightly: {from: 7, token: s3cret}\n",
    );
    kennel.write("dog/config.schema.json", "{\"type\": \"objekt\"}");
    example(&kennel, configured().expect_err("no schema"));
    kennel.write(
        "dog/config.schema.json",
        r#"{"properties": {
            "volume": {"type": "integer"},
            "nightly": {"properties": {"from": {"maximum": 6}, "token": {"maxLength": 3}}, "required": ["to"]}
        }}"#,
    );
    example(&kennel, configured().expect_err("not what it takes"));

    let named = Settings::new().service("filesytem", |_| crate::ServiceSet::new());
    example(&kennel, named.expect_err("nearly one of the host's"));
    let configure = Configure::new().file(kennel.path("config.yaml"));
    example(&kennel, configure.read().expect_err("no file"));
    kennel.write(
        "config.yaml",
        "aplication: {}\nsupervision: {ping: maybe}\n",
    );
    let configure = configure.set("--set", "supervision.start", "soon");
    example(&kennel, configure.read().expect_err("a misspelt key"));

    let kennel = Kennel::new();
    let own = kennel.dog().with_data_dir("/");
    example(&kennel, own.expect_err("all there is"));
    kennel.add("second", "");
    let plugins = Plugins::open(kennel.0.path()).expect("a folder");
    example(&kennel, plugins.get("cat").expect_err("no such plugin"));
    let second = plugins.entries()[1].plugin();
    example(&kennel, second.expect_err("a second dog").clone());
    std::os::unix::fs::symlink("loop", kennel.path("loop")).expect("linked");
    let plugins = Plugins::open(kennel.0.path()).expect("a folder");
    example(&kennel, plugins.get("loop").expect_err("it leads nowhere"));
    example(&kennel, plugins.get("dog").expect_err("no `x` in its mode"));

    let kennel = Kennel::new();
    kennel.add("dog/1.2.0", "");
    kennel.add("cat/1.0.0", "");
    let pinned = Settings::new().pin("dog", semver::Version::new(1, 3, 0));
    let plugins = pinned.open(kennel.0.path()).expect("a folder");
    example(&kennel, plugins.get("cat").expect_err("it holds a dog"));
    example(&kennel, plugins.get("dog").expect_err("no such version"));
    let plugins = Plugins::open(kennel.0.path()).expect("a folder");
    let earlier = plugins.registry().earlier("dog").expect_err("none before");
    example(&kennel, earlier.into());

    let kennel = Kennel::new();
    kennel.rename("dog/dog", "dog/dgo");
    example(&kennel, kennel.dog().launch().expect_err("no program"));
    fs::create_dir(kennel.path("dog/dog")).expect("a folder");
    example(&kennel, kennel.dog().launch().expect_err("a folder"));
    fs::remove_dir(kennel.path("dog/dog")).expect("removed");
    kennel.rename("dog/dgo", "dog/dog");
    let strict = Settings::new().require_checksums();
    let plugin = strict.open_plugin(kennel.path("dog")).expect("a plugin");
    example(
        &kennel,
        plugin.launch().expect_err("it must have a checksum"),
    );
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let trust = Trust::new().key(key).expect("a key");
    let strict = Settings::new().require_signatures(trust);
    let plugin = strict.open_plugin(kennel.path("dog")).expect("a plugin");
    example(&kennel, plugin.launch().expect_err("it must be signed"));
    fs::create_dir(kennel.path("dog/plugin.sha256")).expect("a folder");
    example(&kennel, kennel.dog().launch().expect_err("no file"));
    fs::remove_dir(kennel.path("dog/plugin.sha256")).expect("removed");
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    for checksums in [
        "".to_owned(),
        "d0c".to_owned(),
        format!("{one}  cat\n{two}  cow\n"),
        format!("{one}  dog\n{two}  dog\n"),
    ] {
        kennel.write("dog/plugin.sha256", &checksums);
        example(&kennel, kennel.dog().launch().expect_err("no checksum"));
    }
    kennel.write("dog/plugin.sha256", &"0".repeat(64));
    example(&kennel, kennel.dog().digest().expect_err("another program"));
    let other = kennel.dog().start().await;
    example(&kennel, other.expect_err("another program"));

    let kennel = Kennel::new();
    kennel.add("dog", "environment: {read: [HOME]}");
    example(&kennel, kennel.dog().launch().expect_err("not allowed"));

    let kennel = Kennel::new();
    kennel.add("dog", "process: {exec: [{command: /bin/true}]}");
    let dog = |mode| {
        let settings = Settings::new().policy(Policy::allow_requested());
        let settings = settings.lock_file(kennel.path("outrigger.lock"));
        let settings = settings.lock_mode(mode);
        settings.open_plugin(kennel.path("dog")).expect("a plugin")
    };
    let first = dog(LockMode::TrustFirst);
    example(&kennel, first.launch().expect_err("it runs a command"));
    first.approve(None).expect("approved");
    let _ = first.launch().expect("it was approved");
    kennel.write("dog/dog", "another program");
    let locked = dog(LockMode::Locked).launch();
    example(&kennel, locked.expect_err("another program"));
    let other: ExpectedDigest = "0".repeat(64).parse().expect("a digest");
    let unexpected = dog(LockMode::Strict).approve(Some(&other));
    example(&kennel, unexpected.expect_err("another program"));
    kennel.write("outrigger.lock", "version = 2");
    let newer = dog(LockMode::TrustFirst).launch();
    example(&kennel, newer.expect_err("nobody can read it"));
    supervised(&mut example).await;
    examples
}

outrigger_host::grpc_interface! {
    /// What a dog that speaks net/rpc has no client for.
    Bark => outrigger_examples::proto::kv::kv_client::KvClient
}

/// The errors of a host with its plugins.
async fn supervised(example: &mut impl FnMut(&Kennel, Error)) {
    let kennel = Kennel::new();
    let dies = program("misbehaving-plugin").display().to_string();
    let dies = format!("#!/bin/sh\nexec {dies} resets-calls\n");
    write_script(&kennel.path("dog/dog"), &dies);
    let once = Supervision {
        restart: Restart::Never,
        ..Supervision::default()
    };
    let host = Settings::new().supervision(once).host(kennel.0.path());
    let host = host.await.expect("a folder");
    host.stop("dog").await.expect("a dog");
    let stopped = host.client::<Bark>("dog").await;
    example(&kennel, stopped.expect_err("it is stopped"));
    example(
        &kennel,
        host.start("dog").await.expect_err("it is not well"),
    );
    let failed = host.client::<Bark>("dog").await;
    example(&kennel, failed.expect_err("it failed"));
    let manifest = fs::read_to_string(kennel.path("dog/manifest.yaml"));
    let manifest = manifest.expect("a manifest").replace("grpc", "rpc");
    let cookie = "magic_cookie_key: BASIC_PLUGIN, magic_cookie_value: hello";
    let manifest = manifest.replace("magic_cookie_key: DOG, magic_cookie_value: x", cookie);
    kennel.write("dog/manifest.yaml", &manifest);
    let kv = program("kv").display().to_string();
    write_script(
        &kennel.path("dog/dog"),
        &format!("#!/bin/sh\nexec {kv} netrpc\n"),
    );
    let unfit = Settings::new().prepare(async |_| Err("it does not bark".into()));
    let unfit = unfit.host(kennel.0.path()).await.expect("a folder");
    let unfit = unfit.start("dog").await;
    example(&kennel, unfit.expect_err("it is tried"));
    let other = Settings::new()
        .host(kennel.0.path())
        .await
        .expect("a folder");
    let none = other.client::<Bark>("dog").await;
    example(&kennel, none.expect_err("it speaks net/rpc"));
    other.shutdown(std::time::Duration::from_secs(10)).await;
    example(&kennel, other.start("dog").await.expect_err("too late"));
}

/// The codes in the table of the page for authors of hosts, but for those of a launch.
fn documented() -> BTreeSet<&'static str> {
    include_str!("../../../../docs/embedding.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect()
}

#[tokio::test]
async fn every_kind_of_error_has_a_code_and_says_what_is_wrong() {
    let examples = examples().await;
    let mut met = [false; KINDS];
    for (error, _) in &examples {
        met[number_of(error.kind())] = true;
    }
    assert_eq!(met, [true; KINDS]);
    let codes: BTreeSet<&str> = examples.iter().map(|(error, _)| error.code()).collect();
    let of_others = BTreeSet::from(["digest-mismatch", "transport-unsupported"]);
    assert_eq!(documented(), &codes - &of_others);
    let texts: Vec<&str> = examples.iter().map(|(_, text)| text.as_str()).collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    [plugins-unreadable] the plugins in `DIR/missing` could not be listed
      No such file or directory (os error 2)
    [manifest-unreadable] the manifest `DIR/dog/manifest.yaml` could not be read
      No such file or directory (os error 2)
      the folder holds `manifst.yaml`
    [manifest-invalid] DIR/dog/manifest.yaml has 4 problems
      DIR/dog/manifest.yaml:1:1: handshake: the key `handshake` is missing [missing-key]
      DIR/dog/manifest.yaml:1:9: plugin.format: the key `format` is missing [missing-key]
      DIR/dog/manifest.yaml:1:9: plugin.entrypoint: the key `entrypoint` is missing [missing-key]
      DIR/dog/manifest.yaml:1:10: plugin.nme: the key `nme` has no meaning here; did you mean `name`? [unknown-key]
      help: `outrigger check` shows each problem in its place
    [policy-unreadable] the policy `DIR/dog/policy.yaml` could not be read
      No such file or directory (os error 2)
      the folder holds `manifest.yaml`, `manifst.yaml`
    [policy-invalid] DIR/policy.yaml has 1 problem
      DIR/policy.yaml:1:11: default.alow: the key `alow` has no meaning here; did you mean `allow`? [unknown-key]
      help: `outrigger check` shows each problem in its place
    [plugin-config-unreadable] the configuration `DIR/dog.yaml` of a plugin could not be read
      it is no regular file
    [plugin-schema-invalid] the schema `DIR/dog/config.schema.json` of a plugin cannot be used
      "objekt" is not valid under any of the schemas listed in the 'anyOf' keyword
      help: ask the plugin's author for a schema that can be used
    [plugin-config-invalid] DIR/dog.yaml has 4 problems
      DIR/dog.yaml:1:9: volume: value is not of type "integer" [against-schema]
      DIR/dog.yaml:2:10: nightly: "to" is a required property [against-schema]
      DIR/dog.yaml:2:17: nightly.from: value is greater than the maximum of 6 [against-schema]
      DIR/dog.yaml:2:27: nightly.token: value is longer than 3 characters [against-schema]
      help: the plugin's `config.schema.json` says what it takes
    [invalid-service-name] `filesytem` is not the name of a service
      near it is `filesystem`
      help: names have 1 to 64 of a-z, 0-9, `-`, `_` and `.`, begin with a letter, and are not nearly one of the host's services
    [configuration-unreadable] the configuration `DIR/config.yaml` could not be read
      No such file or directory (os error 2)
    [configuration-invalid] the configuration has 3 problems
      DIR/config.yaml:1:1: aplication: the key `aplication` has no meaning here; did you mean `application`? [unknown-key]
      DIR/config.yaml:2:21: supervision.ping: the text `maybe` stands where `true` or `false` is wanted [wrong-type]
      command line: --set supervision.start: `soon` is not a time to start [unknown-word]; help: possible: at-once, lazily
      help: `outrigger config` shows each problem in its place
    [place-unusable] ${data_dir} cannot stand for `/`, which is not an absolute path below the root without `..`
      help: keep a plugin in a folder of its own, and its data in another
    [plugin-not-found] there is no plugin `cat`
      there are `dog`
    [plugin-name-taken] another folder holds a plugin `dog` too
      `DIR/dog` is the one that counts
      help: give one of the two another `plugin.name`
    [plugin-folder-unreadable] `DIR/loop` leads to no plugin's folder
      Too many levels of symbolic links (os error 40)
    [entrypoint-not-executable] the program of plugin `dog` may not be executed
      `DIR/dog/dog` has the mode 0644
      help: `chmod +x DIR/dog/dog`
    [version-folder-mismatch] `DIR/cat/1.0.0` holds no such version of plugin `cat`
      its manifest is that of `dog`
      help: name the folder after `plugin.version`, in a folder named after `plugin.name`
    [version-not-installed] plugin `dog` is pinned to `1.3.0`, which is not installed
      installed are `1.2.0`
      help: install that version, or pin another
    [no-earlier-version] plugin `dog` has no earlier version that can be used
      in use is `1.2.0`
    [entrypoint-not-found] plugin `dog` has no program at its entrypoint
      DIR/dog/manifest.yaml names `dog`
      `DIR/dog/dog` does not exist
      its folder contains `dgo`
      help: build it, or correct `plugin.entrypoint`
    [entrypoint-unusable] what plugin `dog` has at its entrypoint is no program
      `DIR/dog/dog`: it is no regular file
    [checksum-missing] plugin `dog` has no checksum file, and must have one
      `DIR/dog/plugin.sha256` does not exist
      `DIR/dog/dog.sha256` does not exist
      help: write one with `sha256sum` if the program is the one you mean
    [signature-missing] plugin `dog` is not signed
      `DIR/dog/plugin.sha256` does not exist
      help: sign the list of its files: `sha256sum … > plugin.sha256`, then `minisign -S -m plugin.sha256`
    [checksum-unreadable] the checksum file `DIR/dog/plugin.sha256` could not be read
      it is no regular file
    [checksum-empty] the checksum file `DIR/dog/plugin.sha256` says nothing of the program
      the file has no checksum in it
      help: write it anew with `sha256sum` if the program is the one you mean
    [checksum-malformed] the checksum file `DIR/dog/plugin.sha256` says nothing of the program
      line 1: `d0c` is not a SHA-256 digest of 64 hexadecimal digits
      help: write it anew with `sha256sum` if the program is the one you mean
    [checksum-not-listed] the checksum file `DIR/dog/plugin.sha256` says nothing of the program
      none of its 2 lines is about `dog`
      help: write it anew with `sha256sum` if the program is the one you mean
    [checksum-ambiguous] the checksum file `DIR/dog/plugin.sha256` says nothing of the program
      it has two different checksums for `dog`
      help: write it anew with `sha256sum` if the program is the one you mean
    [digest-mismatch] plugin `dog` is not the program that was meant
      the program's sha256 is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, expected 0000000000000000000000000000000000000000000000000000000000000000
      help: write its checksum anew if you rebuilt it, otherwise do not run it
    [digest-mismatch] plugin `dog` is not the program that was meant
      the program's sha256 is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, expected 0000000000000000000000000000000000000000000000000000000000000000
    [capability-refused] plugin `dog` asks for more than this host allows
      DIR/dog/manifest.yaml:3:37: capabilities.environment.read[0] HOME: no rule of the policy allows it
      help: review the requests, then widen the policy, or start it with less (`Settings::start_with_less`)
    [needs-approval] plugin `dog` was never approved here
      never trusted at first sight: process exec /bin/true []
      + process exec /bin/true [] (the command is not held to what the plugin is granted)
      + services: clock, log, process (it could ask the host for more kinds of things)
      its program is sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
      help: review that, then `outrigger approve dog --expect sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`
    [lock-differs] plugin `dog` has another program than the one that was approved
      its program is sha256:60f787c0cff51e6d575260e89b89f42c99e2dec420fefcd7741146e41ae19939
      help: review that, then `outrigger approve dog --expect sha256:60f787c0cff51e6d575260e89b89f42c99e2dec420fefcd7741146e41ae19939`
    [digest-unexpected] plugin `dog` is not the one that was to be approved
      its program is sha256:60f787c0cff51e6d575260e89b89f42c99e2dec420fefcd7741146e41ae19939
      to be approved was sha256:0000000000000000000000000000000000000000000000000000000000000000
      help: look at the plugin that is there now, and approve that or bring the other one back
    [lock-newer] the lock file `DIR/outrigger.lock` was written by a newer outrigger: its version is 2
      help: update outrigger on this machine
    [plugin-stopped] plugin `dog` was stopped
      help: start it; a call starts no plugin that somebody stopped
    [plugin-not-serving] plugin `dog` does not serve
      the plugin did not answer a ping
      code: 'Internal error', message: "the peer reset the call: unexpected internal error encountered"
      help: see its stderr; a plugin says that it serves as soon as it can answer calls
    [plugin-failed] plugin `dog` has failed
      plugin `dog` does not serve
      the plugin did not answer a ping
      code: 'Internal error', message: "the peer reset the call: unexpected internal error encountered"
      help: see its stderr; a plugin says that it serves as soon as it can answer calls
    [self-test-failed] plugin `dog` serves, and did not pass the test before its use
      it does not bark
    [transport-unsupported] `outrigger::error::tests::Bark` has no client for netrpc, which plugin `dog` speaks
    [host-shut-down] the host of the plugins is shut down
    "#);
}

//! Several versions of a plugin in one folder, and which of them is used.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use outrigger_registry::{Registry, RegistryError, Scan};
use outrigger_wire::Coded as _;
use semver::Version;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    /// A folder with these versions of `cat`; `flat` is the one in its own folder.
    fn with(flat: Option<&str>, versions: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        fs::create_dir(folder.0.path().join("cat")).expect("a folder");
        if let Some(version) = flat {
            folder.add("cat", "cat", version);
        }
        for version in versions {
            folder.add(&format!("cat/{version}"), "cat", version);
        }
        folder
    }

    fn add(&self, folder: &str, name: &str, version: &str) {
        let folder = self.0.path().join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        let manifest = format!(
            "plugin: {{name: {name}, format: grpc, entrypoint: {name}, version: {version}}}\n\
             handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n"
        );
        fs::write(folder.join("manifest.yaml"), manifest).expect("a manifest");
        fs::write(folder.join(name), "#!/bin/sh\n").expect("a program");
        set_mode(&folder.join(name), 0o755);
    }

    fn break_version(&self, version: &str) {
        set_mode(&self.0.path().join("cat").join(version).join("cat"), 0o644);
    }

    fn scan(&self, scan: &Scan) -> Registry {
        scan.folder(self.0.path()).expect("it can be listed")
    }

    /// The folder of the version that is used, below that of the plugins.
    fn used(&self, scan: Scan) -> Result<String, RegistryError> {
        let registry = self.scan(&scan);
        let folder = registry.get("cat")?.folder().to_owned();
        let below = folder.strip_prefix(self.0.path()).expect("below");
        Ok(below.display().to_string())
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

#[test]
fn the_highest_version_is_used_by_number_and_a_release_before_a_later_pre_release() {
    let any = Scan::new;
    let used = |flat, versions: &[&str]| Folder::with(flat, versions).used(any()).expect("one");
    assert_eq!(used(None, &["1.2.0", "1.10.0", "1.9.9"]), "cat/1.10.0");
    assert_eq!(used(None, &["1.0.0", "2.0.0-rc.1"]), "cat/1.0.0");
    assert_eq!(used(None, &["2.0.0-rc.1", "2.0.0-beta"]), "cat/2.0.0-rc.1");
    assert_eq!(used(Some("9.0.0"), &["1.0.0"]), "cat/1.0.0");
    assert_eq!(used(Some("9.0.0"), &[]), "cat");
}

#[test]
fn what_is_required_and_what_is_pinned_decide() {
    let folder = Folder::with(Some("3.0.0"), &["1.2.0", "1.3.0", "2.0.0"]);
    let required = |text: &str| Scan::new().require("cat", text.parse().expect("versions"));
    assert_eq!(folder.used(required("^1")).expect("one"), "cat/1.3.0");
    assert_eq!(folder.used(required("^3")).expect("one"), "cat");
    let pinned = |text: &str| Scan::new().pin("cat", version(text));
    assert_eq!(folder.used(pinned("1.2.0")).expect("one"), "cat/1.2.0");
    assert_eq!(folder.used(pinned("3.0.0")).expect("one"), "cat");
    let both = required("^1").pin("cat", version("1.2.0"));
    assert_eq!(folder.used(both).expect("one"), "cat/1.2.0");

    let said = |scan: Scan| {
        let error = folder.used(scan).expect_err("none");
        assert_eq!(error.code(), "version-not-installed");
        format!("{error}; {}", error.details().join("; "))
    };
    assert_eq!(
        said(required("^4")),
        "no version of plugin `cat` is `^4`; \
         installed are `3.0.0`, `2.0.0`, `1.3.0`, `1.2.0`"
    );
    assert_eq!(
        said(pinned("1.2.3")),
        "plugin `cat` is pinned to `1.2.3`, which is not installed; \
         installed are `3.0.0`, `2.0.0`, `1.3.0`, `1.2.0`"
    );
    assert_eq!(
        said(required("^2").pin("cat", version("1.2.0"))),
        "plugin `cat` is pinned to `1.2.0`, which cannot be had with `^2`; \
         installed are `3.0.0`, `2.0.0`, `1.3.0`, `1.2.0`"
    );
}

#[test]
fn a_version_that_cannot_be_used_is_passed_over_unless_it_is_pinned() {
    let folder = Folder::with(None, &["1.0.0", "2.0.0"]);
    folder.break_version("2.0.0");
    assert_eq!(folder.used(Scan::new()).expect("one"), "cat/1.0.0");
    let pinned = Scan::new().pin("cat", version("2.0.0"));
    let registry = folder.scan(&pinned);
    let error = registry.get("cat").expect("installed").error();
    assert_eq!(
        error.map(|error| error.code()),
        Some("entrypoint-not-executable")
    );
    folder.break_version("1.0.0");
    assert_eq!(folder.used(Scan::new()).expect("one"), "cat/2.0.0");
}

#[test]
fn a_plugin_is_taken_back_to_the_version_before_as_often_as_there_is_one() {
    let folder = Folder::with(Some("0.9.0"), &["1.0.0", "1.1.0", "2.0.0"]);
    folder.break_version("1.1.0");
    let mut scan = Scan::new();
    let mut versions = Vec::new();
    let error = loop {
        match folder.scan(&scan).earlier("cat") {
            Ok(entry) => {
                let earlier = entry.version().expect("one").clone();
                versions.push(earlier.to_string());
                scan = scan.pin("cat", earlier);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(versions, ["1.0.0", "0.9.0"]);
    assert_eq!(error.code(), "no-earlier-version");
    assert_eq!(
        error.to_string(),
        "plugin `cat` has no earlier version that can be used"
    );
    assert_eq!(error.details(), ["in use is `0.9.0`"]);
}

#[test]
fn every_version_is_listed_and_a_folder_that_holds_another_one_is_an_error() {
    let folder = Folder::with(None, &["1.0.0", "2.0.0"]);
    folder.add("cat/3.0.0", "cat", "3.0.1");
    folder.add("cat/4.0.0", "dog", "4.0.0");
    fs::create_dir(folder.0.path().join("cat/5.0.0")).expect("a folder");
    fs::create_dir(folder.0.path().join("cat/docs")).expect("a folder");
    fs::write(folder.0.path().join("cat/6.0.0"), "").expect("a file");
    let registry = folder.scan(&Scan::new());
    let listed: Vec<_> = registry
        .entries()
        .iter()
        .map(|entry| {
            let version = entry.version().map(Version::to_string).unwrap_or_default();
            (
                entry.name(),
                version,
                entry.error().map(|error| error.code()),
            )
        })
        .collect();
    let mismatch = Some("version-folder-mismatch");
    let one = |version: &str, code| ("cat", version.to_owned(), code);
    assert_eq!(
        listed,
        [
            one("1.0.0", None),
            one("2.0.0", None),
            one("3.0.0", mismatch),
            one("4.0.0", mismatch),
            one("5.0.0", Some("manifest-unreadable")),
        ]
    );
    let wrong = registry.entries()[3].error().expect("another plugin");
    assert_eq!(wrong.details(), ["its manifest is that of `dog` 4.0.0"]);
    assert_eq!(folder.used(Scan::new()).expect("one"), "cat/2.0.0");
    assert_eq!(
        registry.get("dog").expect_err("none").code(),
        "plugin-not-found"
    );
}

#[test]
fn a_name_that_another_folder_has_is_taken_in_all_its_versions() {
    let folder = Folder::with(None, &["1.0.0"]);
    folder.add("dog/1.0.0", "dog", "1.0.0");
    folder.add("x", "cat", "2.0.0");
    let registry = folder.scan(&Scan::new());
    let codes = registry
        .entries()
        .iter()
        .map(|entry| entry.error().map(|error| error.code()));
    assert_eq!(
        codes.collect::<Vec<_>>(),
        [None, None, Some("plugin-name-taken")]
    );
    assert_eq!(folder.used(Scan::new()).expect("one"), "cat/1.0.0");
}

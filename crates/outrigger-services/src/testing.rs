//! Grants, and what runs under them, for the tests of this crate's own parts.

use std::path::Path;
use std::sync::Arc;

use outrigger_manifest::{FilesystemGrant, Grants, Manifest, Places, Policy};
use outrigger_transport::PluginIdentity;

use crate::audit::AuditLog;
use crate::fs::area::Area;
use crate::fs::areas::GrantedAreas;
use crate::fs::call::{FileCall, FileSettings, HardLinks, Ownership, SessionFiles};
use crate::fs::real_paths::RealPath;
use crate::limits::Limits;
use crate::session::{Session, Terms};

/// The grants of a plugin that gets all that it asks for.
pub(crate) fn grants(capabilities: &str) -> Grants {
    let manifest = Manifest::parse(&format!(
        "plugin: {{name: tested, format: grpc, entrypoint: tested}}\n\
         handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n\
         capabilities: {capabilities}\n"
    ));
    let places = Places::new("/nowhere/plugin", "/nowhere/data").expect("places");
    let policy = Policy::allow_requested();
    policy
        .decide(&manifest.expect("a manifest"), &places)
        .grants()
}

/// The terms of such a plugin.
pub(crate) fn terms(capabilities: &str) -> Terms {
    Terms {
        grants: grants(capabilities),
        limits: Limits::default(),
        audit: AuditLog::none(),
        digest: None,
        decided: crate::session::Decided::default(),
    }
}

/// The files of one connection.
pub(crate) fn files(terms: Terms, identity: PluginIdentity) -> Arc<SessionFiles> {
    let areas = GrantedAreas::take(&terms.grants);
    files_in(terms, identity, areas)
}

fn files_in(terms: Terms, identity: PluginIdentity, areas: GrantedAreas) -> Arc<SessionFiles> {
    let session = Arc::new(Session::new(Arc::new(terms), identity));
    let settings = FileSettings {
        temp_root: outrigger_transport::temp_dir(),
        hard_links: HardLinks::ReadOnly,
        ownership: Ownership::Host,
    };
    Arc::new(SessionFiles::new(session, Arc::new(areas), settings))
}

/// One operation under grants for these directories, whose paths are resolved by the
/// kernel or, `stepwise`, one by one.
pub(crate) fn file_call(entries: &[(&Path, &str, bool)], stepwise: bool) -> FileCall {
    let entries: Vec<String> = entries
        .iter()
        .map(|(path, permissions, recursive)| {
            format!("{{path: {path:?}, permissions: [{permissions}], recursive: {recursive}}}")
        })
        .collect();
    let terms = terms(&format!("{{filesystem: [{}]}}", entries.join(", ")));
    let identity = PluginIdentity::new("tested", "tested-1", None);
    let files = match stepwise {
        false => files(terms, identity),
        true => {
            let take = |grant: &FilesystemGrant| {
                let (path, rights) = (grant.path().to_owned(), grant.permissions());
                let place = RealPath::plain(&path);
                let area = Area::take(path, place, rights, grant.recursive(), "test".into());
                Ok(Arc::new(area.expect("an area").one_by_one()))
            };
            let all = terms.grants.filesystem().iter().map(take).collect();
            files_in(terms, identity, GrantedAreas { all })
        }
    };
    files.call_with(Arc::default())
}

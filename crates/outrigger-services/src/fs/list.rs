//! Listing a requested directory, page by page.

use outrigger_manifest::Permissions;
use rustix::fs::Dir;
use uuid::Uuid;

use super::call::FileCall;
use super::listing::{Listing, Page};
use super::requested_path::RequestedPath;
use super::resolve::Follow;
use super::rights::Required;
use crate::fault::Fault;

/// Entries of a page when the plugin names no number.
const DEFAULT: usize = 1000;
/// Most entries of a page.
const MOST: usize = 16_384;
const LIST: Required = Required::All(Permissions::LIST);

impl FileCall {
    /// The directory that `wanted` leads to, from its beginning.
    pub(crate) fn listing(&self, wanted: &RequestedPath) -> Result<Listing, Fault> {
        self.reach(wanted, Follow::Yes, LIST, |place| {
            Ok(Listing {
                dir: Dir::new(place.directory()?)?,
                place: place.clone(),
                at: 0,
            })
        })
    }

    /// One page, and the cookie of the next.
    pub(crate) fn list(
        &self,
        wanted: &RequestedPath,
        limit: u32,
        cookie: &str,
    ) -> Result<(Page, String), Fault> {
        let (id, at) = parse(cookie)?;
        let kept = id.and_then(|id| self.files.cursors.take(id));
        let mut listing = match kept {
            // Whatever was granted then must be granted now.
            Some(listing) if listing.at == at => {
                let place = self.reach(wanted, Follow::Yes, LIST, |place| {
                    place.inode()?;
                    Ok(place.clone())
                })?;
                let same = (&place.path, place.spelled());
                if same != (&listing.place.path, listing.place.spelled()) {
                    return Err(Fault::abuse("the cookie belongs to another directory"));
                }
                listing
            }
            _ => self.listing(wanted)?,
        };
        if listing.at != at {
            listing.dir.seek(at)?;
            listing.at = at;
        }
        let most = match limit as usize {
            0 => DEFAULT,
            limit => limit.min(MOST),
        };
        let page = listing.page(most, self.session.limits().payload())?;
        if !page.more {
            return Ok((page, String::new()));
        }
        let id = id.unwrap_or_else(|| Uuid::new_v4().as_u128());
        let next = format!("{id:032x}{:x}", listing.at);
        self.files.cursors.keep(id, listing);
        Ok((page, next))
    }
}

fn parse(cookie: &str) -> Result<(Option<u128>, i64), Fault> {
    if cookie.is_empty() {
        return Ok((None, 0));
    }
    let parse = || {
        if !cookie.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let id = u128::from_str_radix(cookie.get(..32)?, 16).ok()?;
        let at = i64::from_str_radix(cookie.get(32..)?, 16).ok()?;
        Some((Some(id), at))
    };
    parse().ok_or_else(|| Fault::abuse("`cookie` is not one of a listing"))
}

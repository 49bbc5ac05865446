//! HTTP requests that the host makes for the plugin.

use std::time::Duration;

use bytes::Bytes;
use outrigger_wire::proto::host as messages;

use super::time;

/// One HTTP request, made by [`NetworkAccess::request`](super::NetworkAccess::request).
///
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), outrigger_plugin::HostError> {
/// use outrigger_plugin::host::HttpRequest;
///
/// let request = HttpRequest::new("POST", "https://api.example.com/v1/rows")
///     .header("content-type", "application/json")
///     .body("{}");
/// let response = host.network().request(request).await?;
/// println!("{}: {} bytes", response.status(), response.body().len());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it is given to the network"]
pub struct HttpRequest(pub(super) messages::HttpRequest);

impl HttpRequest {
    /// A request for an `http://` or `https://` address.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self(messages::HttpRequest {
            method: method.into(),
            url: url.into(),
            ..messages::HttpRequest::default()
        })
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.0.headers.push(messages::Header { name, value });
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.0.body = body.into();
        self
    }

    /// Bounds how long it takes, all redirects together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout_ms = time::millis(timeout);
        self
    }

    /// Follows so many redirects, each judged as a request of its own. To another
    /// origin goes no body, and no field that may be a credential.
    pub fn follow_redirects(mut self, most: u32) -> Self {
        self.0.follow_redirects = most;
        self
    }
}

/// The reply to an HTTP request.
#[derive(Clone, Debug)]
pub struct HttpResponse(pub(super) messages::HttpResponse);

impl HttpResponse {
    /// The status, such as 200.
    pub fn status(&self) -> u32 {
        self.0.status
    }

    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.0.headers.iter();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(&found.value)
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let headers = self.0.headers.iter();
        headers.map(|header| (header.name.as_str(), &*header.value))
    }

    /// The body; empty where it comes as a stream.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Where it came from, after redirects.
    pub fn url(&self) -> &str {
        &self.0.url
    }
}

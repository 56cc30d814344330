//! Keeps web pages and other machines away from servers that are only for programs on this machine.
//!
//! A browser sends `Origin` with most requests of a page, and with all of them `Sec-Fetch-Site`: how the page is related to
//! the server. A page that makes its own name resolve to 127.0.0.1 (DNS rebinding) cannot change `Host`.
//!
//! Source: <https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::Router;
use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

/// The header by which a browser says how the page that sends a request is related to the server.
const FETCH_SITE: &str = "sec-fetch-site";
/// What it says about a request of the server's own page, and about an address that a person opened.
const OWN_SITES: [&str; 2] = ["same-origin", "none"];

/// Answers requests from programs on this machine until the task ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, router: Router) -> std::io::Result<()> {
    axum::serve(listener, router.layer(middleware::from_fn(refuse_web_pages))).await
}

/// Answers requests from programs on this machine, and refuses all others with 403. It is a middleware of axum.
pub async fn refuse_web_pages(request: Request, next: Next) -> Response {
    match find_problem(&request) {
        None => next.run(request).await,
        Some(problem) => (StatusCode::FORBIDDEN, problem).into_response(),
    }
}

fn find_problem(request: &Request) -> Option<&'static str> {
    if request.headers().contains_key(ORIGIN) {
        return Some("This server answers no web page: the request has an Origin header.\n");
    }
    host_problem(request).or_else(|| site_problem(request.headers()))
}

/// Why a browser says that a request is not one of the server's own page. `None` if it does not say so.
#[must_use]
pub fn site_problem(headers: &HeaderMap) -> Option<&'static str> {
    let mut sites = headers.get_all(FETCH_SITE).iter();
    let is_own = sites.all(|site| OWN_SITES.iter().any(|own| site == own));
    (!is_own).then_some(
        "This server answers no other web page: see the Sec-Fetch-Site header. To open an address of this server, paste it \
         into the address bar.\n",
    )
}

/// Why a request is not for this machine. `None` if it is.
#[must_use]
pub fn host_problem(request: &Request) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    let is_local = host.as_ref().is_some_and(is_loopback)
        && hosts.next().is_none()
        && request.uri().authority().is_none_or(is_loopback);
    (!is_local)
        .then_some("This server answers only requests to localhost, 127.0.0.0/8 or [::1]: see the Host header.\n")
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let is_plain = !authority.as_str().contains('@');
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    is_plain
        && (host.eq_ignore_ascii_case("localhost")
            || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
            || ipv6.and_then(|host| host.parse::<Ipv6Addr>().ok()).is_some_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn problem_of(uri: &str, headers: &[(&str, &str)]) -> Option<&'static str> {
        let request = headers.iter().fold(Request::builder().uri(uri), |it, (name, value)| it.header(*name, *value));
        find_problem(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn only_loopback_hosts_are_answered() {
        for host in ["localhost", "LOCALHOST:9000", "127.0.0.1", "127.0.0.1:8000", "127.8.9.1:1", "[::1]", "[::1]:8000"]
        {
            assert_eq!(problem_of("/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:9000",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0:9000",
            "[::]:9000",
            "[::ffff:127.0.0.1]",
            "user@127.0.0.1",
            "127.1",
        ] {
            assert!(problem_of("/", &[("host", host)]).unwrap().contains("Host header"), "{host}");
        }
        assert!(problem_of("/", &[]).is_some());
        assert!(problem_of("/", &[("host", "localhost"), ("host", "evil.example")]).is_some());
        assert!(problem_of("http://evil.example/", &[("host", "localhost")]).is_some());
        assert_eq!(problem_of("http://localhost/", &[("host", "localhost")]), None);
    }

    #[test]
    fn web_page_is_refused_whatever_its_origin() {
        for origin in ["https://evil.example", "http://localhost:9000", "null", ""] {
            let problem = problem_of("/", &[("host", "127.0.0.1:9000"), ("origin", origin)]);
            assert!(problem.unwrap().contains("Origin header"), "{origin}");
        }
    }

    #[test]
    fn request_of_another_site_is_refused() {
        let problem_of_site = |site| problem_of("/", &[("host", "127.0.0.1:9000"), ("sec-fetch-site", site)]);
        for site in ["cross-site", "same-site", "", "CROSS-SITE", "new-kind"] {
            assert!(problem_of_site(site).unwrap().contains("Sec-Fetch-Site header"), "{site}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(problem_of_site(site), None, "{site}");
        }
        let twice = [("host", "127.0.0.1"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
        assert!(problem_of("/", &twice).is_some());
    }
}

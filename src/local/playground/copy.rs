//! Exchanges as commands and as events of Lambda, signed afresh with the playground's throw-away keys.

use axum::http::HeaderMap;
use serde::Deserialize;
use url::Url;

use crate::alicloud::sign::v3;
use crate::chat::SignedRequest;
use crate::clock;
use crate::fake::traffic::Exchange;
use crate::local::chat_stage::ChatStage;
use crate::local::{Error, event};

/// In which form an exchange is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CopyForm {
    /// A command for a shell.
    Curl,
    /// An event for `cargo lambda invoke webhook`.
    Event,
}

/// Headers that curl writes itself.
const CURL_HEADERS: [&str; 5] = ["host", "content-length", "connection", "accept-encoding", "user-agent"];
/// The throw-away keys of the simulated accounts.
const KEYS: [(&str, &str); 3] =
    [("requester-key", "requester-secret"), ("accepter-key", "accepter-secret"), ("other-key", "other-secret")];

/// A name and a value.
#[derive(Debug, Clone)]
struct HeaderLine {
    name: String,
    value: String,
}

/// Signs the request of an exchange again, and writes it in this form.
pub(super) async fn copy_exchange(
    stage: &ChatStage,
    webhook: &Url,
    exchange: &Exchange,
    form: CopyForm,
) -> Result<String, Error> {
    if exchange.server == "webhook" {
        let signed_as =
            stage.find_sent(&exchange.body).ok_or("peergate did not send this request, so it cannot sign it")?;
        let signed = signed_as.sign(stage).await?;
        return Ok(match form {
            CopyForm::Curl => {
                curl(&address_on(webhook, &signed.path)?, &header_lines(&signed), signed.body.as_bytes())?
            }
            CopyForm::Event => serde_json::to_string_pretty(&event::function_url_event(&signed))?,
        });
    }
    if form == CopyForm::Event {
        return Err("only requests to the webhook are events".into());
    }
    let server = match exchange.server {
        "alicloud" => &stage.alicloud_url,
        "slack" => &stage.chat_url,
        name => stage.server_url(name).ok_or("there is no such server")?,
    };
    let url = address_on(server, &exchange.path)?;
    let headers =
        if exchange.server == "alicloud" { sign_again(exchange, &url)? } else { plain_lines(&exchange.headers) };
    curl(&url, &headers, &exchange.body)
}

/// The address of a path on a server, and on no other one. Joined, the path `//evil.example/` would be an address there.
fn address_on(server: &Url, path: &str) -> Result<Url, Error> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = server.clone();
    url.set_path(path);
    url.set_query(query);
    let is_there = url.origin() == server.origin();
    if is_there { Ok(url) } else { Err("this address is on another server".into()) }
}

fn header_lines(signed: &SignedRequest) -> Vec<HeaderLine> {
    let line = |(name, value): &(&'static str, String)| HeaderLine { name: (*name).to_owned(), value: value.clone() };
    signed.headers.iter().map(line).collect()
}

fn plain_lines(headers: &HeaderMap) -> Vec<HeaderLine> {
    let kept = headers.iter().filter(|(name, _)| !CURL_HEADERS.contains(&name.as_str()));
    kept.map(|(name, value)| HeaderLine {
        name: name.to_string(),
        value: value.to_str().unwrap_or_default().to_owned(),
    })
    .collect()
}

/// A call to Alibaba Cloud takes each nonce once, so that it needs another signature.
fn sign_again(exchange: &Exchange, url: &Url) -> Result<Vec<HeaderLine>, Error> {
    let header = |name: &str| exchange.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let credential = header("authorization").split_once("Credential=").map(|(_, rest)| rest);
    let credential = credential.and_then(|rest| rest.split(',').next()).ok_or("the call is not signed")?;
    let (_, secret) = KEYS.iter().find(|(id, _)| *id == credential).ok_or("the key of this call is gone")?;
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let body_hash = v3::body_hash(&exchange.body);
    let signed: v3::Headers = [
        ("content-type", header("content-type").to_owned()),
        ("host", host),
        ("x-acs-action", header("x-acs-action").to_owned()),
        ("x-acs-content-sha256", body_hash.clone()),
        ("x-acs-date", clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("x-acs-signature-nonce", clock::nonce()),
        ("x-acs-version", header("x-acs-version").to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let to_sign = v3::string_to_sign(&v3::canonical_request("POST", "/", "", &signed, &body_hash));
    let authorization = v3::authorization(credential, &signed, &v3::signature(secret, &to_sign));
    let lines = signed.into_iter().filter(|(name, _)| name != "host").map(|(name, value)| HeaderLine { name, value });
    Ok(lines.chain([HeaderLine { name: "authorization".to_owned(), value: authorization }]).collect())
}

/// A command for a shell.
fn curl(url: &Url, headers: &[HeaderLine], body: &[u8]) -> Result<String, Error> {
    if body.contains(&0) {
        return Err("a command cannot have the byte 0, which is in this body".into());
    }
    let mut command = format!("curl -sS --globoff {}", quote(url.as_str().as_bytes()));
    for HeaderLine { name, value } in headers {
        command.push_str(" \\\n  -H ");
        command.push_str(&quote(format!("{name}: {value}").as_bytes()));
    }
    Ok(command + " \\\n  --data-raw " + &quote(body))
}

/// One word for a shell. If a terminal could take a part of it for a key, e.g. Ctrl+C, it has no such part, and is for bash,
/// ksh or zsh. Otherwise, it is for every POSIX shell.
fn quote(word: &[u8]) -> String {
    match std::str::from_utf8(word) {
        Ok(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        Ok(_) | Err(_) => format!("$'{}'", word.iter().map(|byte| escape_byte(*byte)).collect::<String>()),
    }
}

fn escape_byte(byte: u8) -> String {
    match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).into(),
        _ => format!("\\{byte:03o}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_address_is_on_its_own_server() {
        let server = Url::parse("http://127.0.0.1:8080/").unwrap();
        for (path, expected) in [
            ("/api/x?a=1&b=%27", "http://127.0.0.1:8080/api/x?a=1&b=%27"),
            ("//evil.example/x", "http://127.0.0.1:8080//evil.example/x"),
            ("//evil.example@[::1]/?//x", "http://127.0.0.1:8080//evil.example@[::1]/?//x"),
            ("http://evil.example/", "http://127.0.0.1:8080/http://evil.example/"),
            ("\\\\evil.example/{a,b}[1-9]#x", "http://127.0.0.1:8080//evil.example/%7Ba,b%7D[1-9]%23x"),
            ("@evil.example", "http://127.0.0.1:8080/@evil.example"),
            ("*", "http://127.0.0.1:8080/*"),
        ] {
            assert_eq!(address_on(&server, path).unwrap().as_str(), expected, "{path}");
        }
    }

    #[test]
    fn pasted_command_has_no_control_character() {
        let url = Url::parse("http://127.0.0.1:8080/").unwrap();
        let header = |value: &str| [HeaderLine { name: "x".to_owned(), value: value.to_owned() }];
        let bodies: [&[u8]; 6] =
            [b"\x03touch x\n", b"\x1b[201~\r", "\u{9b}31m".as_bytes(), b"\xff'\\'", b"a\tb", "it's 平凡 \\".as_bytes()];
        for body in bodies {
            let command = curl(&url, &header("a\tb"), body).unwrap();
            let lines = command.replace(" \\\n  -", " -");
            assert!(!lines.contains(char::is_control), "{lines:?}");
            let printed =
                std::process::Command::new("bash").args(["-c", &format!("printf %s {}", quote(body))]).output();
            assert_eq!(printed.unwrap().stdout, body, "{command}");
        }
        assert_eq!(quote("it's 平凡".as_bytes()), "'it'\\''s 平凡'");
        assert_eq!(quote(b"it's\n\x03"), "$'it\\'s\\012\\003'");
        curl(&url, &[], b"a\0b").unwrap_err();
    }
}

//! The forms that Slack sends, and the text in them.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Method, Request};
use percent_encoding::percent_decode;

use crate::chat::MalformedRequest;

/// The longest test of the address, in bytes. Slack's has about forty.
const MAX_ADDRESS_TEST_BYTES: usize = 256;
/// The most fields of a form. Slack sends about fifteen.
const MAX_FIELDS: usize = 64;

/// Slack tests the certificate of the address from time to time: `ssl_check=1`, and a legacy token that says nothing. The
/// test is unsigned, so it is only one if there is nothing else in the request.
///
/// Source: <https://docs.slack.dev/interactivity/implementing-slash-commands>
pub(in crate::chat) fn is_address_test(request: &Request<Bytes>) -> bool {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let body = request.body().as_ref();
    let (form, rest) = match *request.method() {
        Method::GET => (query, body),
        Method::POST => (body, query),
        _ => return false,
    };
    if !rest.is_empty() || form.len() > MAX_ADDRESS_TEST_BYTES {
        return false;
    }
    let fields: Vec<_> = form_urlencoded::parse(form).collect();
    let is_check = |(name, value): &(Cow<'_, str>, Cow<'_, str>)| name == "ssl_check" && value == "1";
    match fields.as_slice() {
        [check] => is_check(check),
        [one, other] => (is_check(one) && other.0 == "token") || (one.0 == "token" && is_check(other)),
        _ => false,
    }
}

/// The decoded fields of a form. No field may occur twice.
pub(super) struct FormFields(Vec<(Vec<u8>, Vec<u8>)>);

impl FormFields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, MalformedRequest> {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = vec![];
        for field in body.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
            // Bounds the work: each name is compared with all earlier ones.
            if fields.len() == MAX_FIELDS {
                return Err(MalformedRequest::new("the form has more than 64 fields"));
            }
            let mut parts = field.splitn(2, |byte| *byte == b'=').map(decode_form_text);
            let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if fields.iter().any(|(earlier, _)| *earlier == name) {
                return Err(MalformedRequest::new("a field of the form occurs twice"));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// The text of a field. Only a field that is read must be UTF-8: Slack cuts names within a character.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, MalformedRequest> {
        let field = self.0.iter().find(|(field, _)| field == name.as_bytes());
        let text = field.map(|(_, value)| std::str::from_utf8(value)).transpose();
        text.map_err(|_| MalformedRequest::new(format!("the field {name} of the form is not UTF-8")))
    }

    pub(super) fn require(&self, name: &str) -> Result<&str, MalformedRequest> {
        self.get(name)?.ok_or_else(|| MalformedRequest::new(format!("the form has no field {name}")))
    }
}

/// Decodes a name or a value of a form.
///
/// Source: <https://url.spec.whatwg.org/#urlencoded-parsing>
fn decode_form_text(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<_> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

/// Escapes a text as Slack does: exactly these three characters.
///
/// Source: <https://docs.slack.dev/messaging/formatting-message-text#escaping>
#[must_use]
pub fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What a person typed. Slack escapes the text of messages and commands, but not that of modals.
///
/// Source: <https://docs.slack.dev/messaging/formatting-message-text#escaping>
pub(super) fn unescape_text(text: &str) -> String {
    // The ampersand is last, so that no text is decoded twice.
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

//! The app for Teams: its manifest, and the package that an administrator uploads.
//!
//! Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/resources/schema/manifest-schema>

use serde_json::{Value, json};
use url::Url;

use super::{Config, PlatformContext};
use crate::chat::command_words::CommandVerb;

const MANIFEST_VERSION: &str = "1.17";
/// The file that is written into the current directory.
const PACKAGE: &str = "peergate-teams.zip";
/// 192 x 192 pixels.
const COLOR_ICON: &[u8] = include_bytes!("../../../deploy/teams/color.png");
/// 32 x 32 pixels, white on transparent.
const OUTLINE_ICON: &[u8] = include_bytes!("../../../deploy/teams/outline.png");
/// Where the bot can be added.
const SCOPES: [&str; 3] = ["team", "groupChat", "personal"];

/// Writes the app's package. Returns the steps of an operator so that requests arrive at `url`.
pub(in crate::chat) async fn register_webhook(access: PlatformContext<'_>, url: &Url) -> Result<String, String> {
    let package = app_package(access.config, url)?;
    std::fs::write(PACKAGE, package).map_err(|error| format!("cannot write {PACKAGE}: {error}"))?;
    Ok(format!(
        "Teams has no API for this.\n1. Enter {url} as the messaging endpoint of the Azure Bot of the app {}, and add its channel \
         Microsoft Teams.\n2. Upload {PACKAGE}, which is in this directory, in the admin center of Teams, and add the app to \
         the team or chat.\n3. Write `@peergate help` there.",
        access.config.app
    ))
}

/// The manifest of the app.
#[must_use]
pub fn manifest(config: &Config, url: &Url) -> Value {
    let site = url.join("/").map(|site| site.to_string()).unwrap_or_default();
    let questions = CommandVerb::ALL.into_iter().filter(|verb| !verb.changes_something());
    let commands = questions.map(|verb| json!({"title": verb.word(), "description": verb.explanation()}));
    let commands: Vec<_> = commands.chain([json!({"title": "help", "description": "list the commands"})]).collect();
    json!({
        "$schema": format!(
            "https://developer.microsoft.com/json-schemas/teams/v{MANIFEST_VERSION}/MicrosoftTeams.schema.json"
        ),
        "manifestVersion": MANIFEST_VERSION,
        "version": "1.0.0",
        "id": config.app,
        "developer": {"name": "peergate", "websiteUrl": site, "privacyUrl": site, "termsOfUseUrl": site},
        "name": {"short": "peergate", "full": "peergate: approve VPC peering connections"},
        "description": {
            "short": "People approve VPC peering connections of Alibaba Cloud.",
            "full": "peergate posts each request for a VPC peering connection as a card. The people whom the rules name approve or reject it there.",
        },
        "icons": {"color": "color.png", "outline": "outline.png"},
        "accentColor": "#1F4E79",
        "bots": [{
            "botId": config.app, "scopes": SCOPES, "supportsFiles": false, "isNotificationOnly": false,
            "commandLists": [{"scopes": SCOPES, "commands": commands}],
        }],
        "permissions": ["identity", "messageTeamMembers"],
        "validDomains": url.host_str().into_iter().collect::<Vec<_>>(),
    })
}

/// The package of the app: a zip with the manifest and two icons.
///
/// # Errors
/// When a file is too large for a zip.
pub fn app_package(config: &Config, url: &Url) -> Result<Vec<u8>, String> {
    let manifest = serde_json::to_string_pretty(&manifest(config, url)).map_err(|error| error.to_string())?;
    let files = [
        ZipEntry { name: "manifest.json", content: manifest.as_bytes() },
        ZipEntry { name: "color.png", content: COLOR_ICON },
        ZipEntry { name: "outline.png", content: OUTLINE_ICON },
    ];
    zip_stored(&files).ok_or_else(|| "the package is too large".to_owned())
}

struct ZipEntry<'a> {
    name: &'static str,
    content: &'a [u8],
}

/// A zip whose files are not compressed.
///
/// Source: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>
fn zip_stored(files: &[ZipEntry<'_>]) -> Option<Vec<u8>> {
    let (mut zip, mut directory) = (vec![], vec![]);
    for ZipEntry { name, content } in files {
        let (offset, size) = (u32::try_from(zip.len()).ok()?, u32::try_from(content.len()).ok()?);
        let name_length = u16::try_from(name.len()).ok()?;
        // Version 1.0, no flags, stored, and the first day that the format knows.
        let mut about = [10_u16, 0, 0, 0, 0x21].map(u16::to_le_bytes).concat();
        about.extend([crc32(content), size, size].map(u32::to_le_bytes).concat());
        about.extend([name_length, 0].map(u16::to_le_bytes).concat());
        zip.extend(b"PK\x03\x04");
        zip.extend(&about);
        zip.extend(name.as_bytes());
        zip.extend(*content);
        directory.extend(b"PK\x01\x02");
        directory.extend(10_u16.to_le_bytes());
        directory.extend(&about);
        directory.extend([0_u16; 5].map(u16::to_le_bytes).concat());
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, begin) = (u16::try_from(files.len()).ok()?, u32::try_from(zip.len()).ok()?);
    let size = u32::try_from(directory.len()).ok()?;
    zip.extend(directory);
    zip.extend(b"PK\x05\x06");
    zip.extend([0, 0, count, count].map(u16::to_le_bytes).concat());
    zip.extend([size, begin].map(u32::to_le_bytes).concat());
    zip.extend(0_u16.to_le_bytes());
    Some(zip)
}

/// Source: <https://www.rfc-editor.org/rfc/rfc1952#section-8>
fn crc32(bytes: &[u8]) -> u32 {
    let add = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_the_known_answer() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }
}

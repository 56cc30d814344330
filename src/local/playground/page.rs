//! The files of the page, compiled in. Only the page itself has an address with the token: the address of a script stands in
//! stack traces, and the one of a style in lists of what was loaded.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageFile {
    /// Its path below `/page`.
    pub(super) path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
}

macro_rules! page_files {
    ($($path:literal: $kind:literal,)+) => {
        const FILES: &[PageFile] = &[$(
            PageFile { path: $path, content_type: $kind, text: include_str!(concat!("page/", $path)) },
        )+];
    };
}

/// The page itself.
pub(super) const INDEX: &str = include_str!("page/index.html");

page_files! {
    "style.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
    "chat.js": "text/javascript; charset=utf-8",
    "why.js": "text/javascript; charset=utf-8",
    "time.js": "text/javascript; charset=utf-8",
    "scenarios.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "cards/cards.css": "text/css; charset=utf-8",
    "cards/dom.js": "text/javascript; charset=utf-8",
    "cards/slack.js": "text/javascript; charset=utf-8",
    "cards/feishu.js": "text/javascript; charset=utf-8",
    "cards/teams.js": "text/javascript; charset=utf-8",
    "cards/dingtalk.js": "text/javascript; charset=utf-8",
}

/// The file with this path.
pub(super) fn find_file(path: &str) -> Option<PageFile> {
    FILES.iter().find(|file| file.path == path).copied()
}

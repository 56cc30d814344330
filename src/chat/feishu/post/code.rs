//! Feishu's error codes, and what each means for the next try.

/// What a code means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Another token may help.
    Token,
    /// It may pass soon.
    Soon,
    /// People have to change something.
    Later,
    /// It is this message that Feishu does not take.
    Few,
    /// The message is gone: it can be neither changed nor answered.
    Gone,
    /// The message is too old to be changed.
    WindowClosed,
    /// The group has no threads, or the message can start none.
    NoThread,
    /// The receiver is gone.
    Never,
}

/// Every code that we know of, in order, with a few words for the operator.
///
/// Source: <https://open.feishu.cn/document/server-docs/api-call-guide/generic-error-code>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message/create>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message-card/patch>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message-card/delay-update-message-card> and
/// <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
#[rustfmt::skip]
const CODES: [(i64, Meaning, &str); 46] = [
    (9_499, Meaning::Few, "the custom bot does not take this body"),
    (10_003, Meaning::Later, "the app's id is not valid"),
    (10_014, Meaning::Later, "the app's secret is not valid"),
    (11_020, Meaning::Soon, "too many requests"),
    (11_021, Meaning::Soon, "too many requests"),
    (11_232, Meaning::Soon, "too many messages of the custom bot"),
    (19_021, Meaning::Later, "the custom bot refuses the signature, or the clock is an hour off"),
    (19_022, Meaning::Later, "the custom bot refuses our IP address"),
    (19_024, Meaning::Later, "the custom bot wants a keyword in each message"),
    (100_290, Meaning::Few, "the card names an unknown user"),
    (200_310, Meaning::Few, "the card is malformed"),
    (200_320, Meaning::Few, "the card is malformed"),
    (200_380, Meaning::Few, "the card's template does not exist"),
    (200_381, Meaning::Few, "the app may not use the card's template"),
    (230_001, Meaning::Few, "a parameter is malformed"),
    (230_002, Meaning::Later, "the bot is not in the group"),
    (230_006, Meaning::Later, "the app has no bot"),
    (230_011, Meaning::Gone, "the message was recalled"),
    (230_013, Meaning::Later, "the person may not use the app"),
    (230_018, Meaning::Later, "the group's settings forbid it"),
    (230_020, Meaning::Soon, "too many messages"),
    (230_022, Meaning::Few, "the message has sensitive content"),
    (230_025, Meaning::Few, "the message is too long"),
    (230_027, Meaning::Later, "the app lacks a permission"),
    (230_028, Meaning::Few, "the tenant's data loss prevention refuses the message"),
    (230_031, Meaning::WindowClosed, "the message is older than 14 days"),
    (230_035, Meaning::Later, "the bot may not send here"),
    (230_049, Meaning::Soon, "the message is still being sent"),
    (230_071, Meaning::NoThread, "the group has no threads"),
    (230_072, Meaning::NoThread, "the message can start no thread"),
    (230_099, Meaning::Few, "the card cannot be built"),
    (230_110, Meaning::Gone, "the message was deleted"),
    (232_009, Meaning::Never, "the group was dissolved"),
    (300_020, Meaning::Few, "the click's token is not valid for this card"),
    (300_030, Meaning::Few, "the click's token has expired"),
    (300_040, Meaning::Few, "the click's token is used up"),
    (300_090, Meaning::Few, "the update names no open_ids"),
    (99_991_400, Meaning::Soon, "too many requests"),
    (99_991_402, Meaning::Soon, "too many requests"),
    (99_991_661, Meaning::Token, "the token is missing"),
    (99_991_663, Meaning::Token, "the token is not valid"),
    (99_991_664, Meaning::Token, "the token is not valid"),
    (99_991_665, Meaning::Token, "the token is not valid"),
    (99_991_666, Meaning::Token, "the token is not valid"),
    (99_991_668, Meaning::Token, "the token is not valid"),
    (99_991_672, Meaning::Later, "the app lacks a permission"),
];

/// What a code means, and in words. An unknown one is people's to look up.
#[must_use]
pub fn meaning(code: i64) -> (Meaning, &'static str) {
    let known = CODES.iter().find(|(known, _, _)| *known == code);
    known.map_or((Meaning::Later, ""), |(_, meaning, words)| (*meaning, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_named_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn retried_soon_are_only_limits_and_what_is_still_being_sent() {
        let soon: Vec<_> =
            CODES.iter().filter(|(_, meaning, _)| *meaning == Meaning::Soon).map(|known| known.0).collect();
        assert_eq!(soon, [11_020, 11_021, 11_232, 230_020, 230_049, 99_991_400, 99_991_402]);
        assert_eq!(meaning(1), (Meaning::Later, ""));
    }
}

//! Feishu's error codes, and what each means for the next try.

/// What a code means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeMeaning {
    /// Another token may help.
    TokenRefused,
    /// It may pass soon.
    Soon,
    /// People have to change something.
    Later,
    /// It is this message that Feishu does not take.
    Few,
    /// The message is gone: it can be neither changed nor answered.
    MessageGone,
    /// The message is too old to be changed.
    TooOld,
    /// The group has no threads, or the message can start none.
    NoThread,
    /// The receiver is gone.
    ReceiverGone,
}

/// Every code that we know of, in order, with a few words for the operator.
///
/// Source: <https://open.feishu.cn/document/server-docs/api-call-guide/generic-error-code>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message/create>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message-card/patch>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message-card/delay-update-message-card> and
/// <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
#[rustfmt::skip]
const CODES: [(i64, CodeMeaning, &str); 46] = [
    (9_499, CodeMeaning::Few, "the custom bot does not take this body"),
    (10_003, CodeMeaning::Later, "the app's id is not valid"),
    (10_014, CodeMeaning::Later, "the app's secret is not valid"),
    (11_020, CodeMeaning::Soon, "too many requests"),
    (11_021, CodeMeaning::Soon, "too many requests"),
    (11_232, CodeMeaning::Soon, "too many messages of the custom bot"),
    (19_021, CodeMeaning::Later, "the custom bot refuses the signature, or the clock is an hour off"),
    (19_022, CodeMeaning::Later, "the custom bot refuses our IP address"),
    (19_024, CodeMeaning::Later, "the custom bot wants a keyword in each message"),
    (100_290, CodeMeaning::Few, "the card names an unknown user"),
    (200_310, CodeMeaning::Few, "the card is malformed"),
    (200_320, CodeMeaning::Few, "the card is malformed"),
    (200_380, CodeMeaning::Few, "the card's template does not exist"),
    (200_381, CodeMeaning::Few, "the app may not use the card's template"),
    (230_001, CodeMeaning::Few, "a parameter is malformed"),
    (230_002, CodeMeaning::Later, "the bot is not in the group"),
    (230_006, CodeMeaning::Later, "the app has no bot"),
    (230_011, CodeMeaning::MessageGone, "the message was recalled"),
    (230_013, CodeMeaning::Later, "the person may not use the app"),
    (230_018, CodeMeaning::Later, "the group's settings forbid it"),
    (230_020, CodeMeaning::Soon, "too many messages"),
    (230_022, CodeMeaning::Few, "the message has sensitive content"),
    (230_025, CodeMeaning::Few, "the message is too long"),
    (230_027, CodeMeaning::Later, "the app lacks a permission"),
    (230_028, CodeMeaning::Few, "the tenant's data loss prevention refuses the message"),
    (230_031, CodeMeaning::TooOld, "the message is older than 14 days"),
    (230_035, CodeMeaning::Later, "the bot may not send here"),
    (230_049, CodeMeaning::Soon, "the message is still being sent"),
    (230_071, CodeMeaning::NoThread, "the group has no threads"),
    (230_072, CodeMeaning::NoThread, "the message can start no thread"),
    (230_099, CodeMeaning::Few, "the card cannot be built"),
    (230_110, CodeMeaning::MessageGone, "the message was deleted"),
    (232_009, CodeMeaning::ReceiverGone, "the group was dissolved"),
    (300_020, CodeMeaning::Few, "the click's token is not valid for this card"),
    (300_030, CodeMeaning::Few, "the click's token has expired"),
    (300_040, CodeMeaning::Few, "the click's token is used up"),
    (300_090, CodeMeaning::Few, "the update names no open_ids"),
    (99_991_400, CodeMeaning::Soon, "too many requests"),
    (99_991_402, CodeMeaning::Soon, "too many requests"),
    (99_991_661, CodeMeaning::TokenRefused, "the token is missing"),
    (99_991_663, CodeMeaning::TokenRefused, "the token is not valid"),
    (99_991_664, CodeMeaning::TokenRefused, "the token is not valid"),
    (99_991_665, CodeMeaning::TokenRefused, "the token is not valid"),
    (99_991_666, CodeMeaning::TokenRefused, "the token is not valid"),
    (99_991_668, CodeMeaning::TokenRefused, "the token is not valid"),
    (99_991_672, CodeMeaning::Later, "the app lacks a permission"),
];

/// What a code means, and in words. An unknown one is people's to look up.
#[must_use]
pub fn code_meaning(code: i64) -> (CodeMeaning, &'static str) {
    let known = CODES.iter().find(|(known, _, _)| *known == code);
    known.map_or((CodeMeaning::Later, ""), |(_, meaning, words)| (*meaning, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn only_limits_and_pending_sends_are_retried_soon() {
        let soon: Vec<_> =
            CODES.iter().filter(|(_, meaning, _)| *meaning == CodeMeaning::Soon).map(|known| known.0).collect();
        assert_eq!(soon, [11_020, 11_021, 11_232, 230_020, 230_049, 99_991_400, 99_991_402]);
        assert_eq!(code_meaning(1), (CodeMeaning::Later, ""));
    }
}

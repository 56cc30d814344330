//! Feishu's error codes, and what each means for the next attempt.

use crate::chat::ThrottleScope;

/// What a code means for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeMeaning {
    /// The token is refused. A new one may be accepted.
    TokenRefused,
    /// Temporary: try again soon.
    Soon,
    /// Too many calls: pause, and try again.
    TooMany(ThrottleScope),
    /// An operator has to change something first.
    AfterFix,
    /// Feishu refuses this one message.
    FewTimes,
    /// The message is deleted: it can be neither updated nor answered.
    MessageGone,
    /// The message is too old to be updated.
    TooOld,
    /// The group has no threads, or the message can start none.
    NoThread,
    /// The receiver no longer exists.
    ReceiverGone,
}

/// An error code of Feishu.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KnownCode {
    pub(super) code: i64,
    /// What the code means for the next attempt.
    pub(super) meaning: CodeMeaning,
    /// For the operator.
    pub(super) text: &'static str,
}

const fn known(code: i64, meaning: CodeMeaning, text: &'static str) -> KnownCode {
    KnownCode { code, meaning, text }
}

/// Every known code, in order.
///
/// Source: <https://open.feishu.cn/document/server-docs/api-call-guide/generic-error-code>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message/create>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message-card/patch>,
/// <https://open.feishu.cn/document/server-docs/im-v1/message-card/delay-update-message-card> and
/// <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
#[rustfmt::skip]
const CODES: [KnownCode; 47] = [
    known(9_499, CodeMeaning::FewTimes, "the custom bot does not take this body"),
    known(10_003, CodeMeaning::AfterFix, "the app's id is not valid"),
    known(10_014, CodeMeaning::AfterFix, "the app's secret is not valid"),
    known(11_020, CodeMeaning::TooMany(ThrottleScope::App), "too many requests"),
    known(11_021, CodeMeaning::TooMany(ThrottleScope::App), "too many requests"),
    known(11_232, CodeMeaning::TooMany(ThrottleScope::Channel), "too many messages of the custom bot"),
    known(19_021, CodeMeaning::AfterFix, "the custom bot refuses the signature, or the clock is an hour off"),
    known(19_022, CodeMeaning::AfterFix, "the custom bot refuses our IP address"),
    known(19_024, CodeMeaning::AfterFix, "the custom bot requires a keyword in each message"),
    known(100_290, CodeMeaning::FewTimes, "the card names an unknown user"),
    known(200_310, CodeMeaning::FewTimes, "the card is malformed"),
    known(200_320, CodeMeaning::FewTimes, "the card is malformed"),
    known(200_380, CodeMeaning::FewTimes, "the card's template does not exist"),
    known(200_381, CodeMeaning::FewTimes, "the app may not use the card's template"),
    known(230_001, CodeMeaning::FewTimes, "a parameter is malformed"),
    known(230_002, CodeMeaning::AfterFix, "the bot is not in the group"),
    known(230_006, CodeMeaning::AfterFix, "the app has no bot"),
    known(230_011, CodeMeaning::MessageGone, "the message was recalled"),
    known(230_013, CodeMeaning::AfterFix, "the person may not use the app"),
    known(230_018, CodeMeaning::AfterFix, "the group's settings forbid it"),
    known(230_020, CodeMeaning::TooMany(ThrottleScope::Channel), "too many messages"),
    known(230_022, CodeMeaning::FewTimes, "the message has sensitive content"),
    known(230_025, CodeMeaning::FewTimes, "the message is too long"),
    known(230_026, CodeMeaning::AfterFix, "the message can no longer be recalled"),
    known(230_027, CodeMeaning::AfterFix, "the app lacks a permission"),
    known(230_028, CodeMeaning::FewTimes, "the tenant's data loss prevention refuses the message"),
    known(230_031, CodeMeaning::TooOld, "the message is older than 14 days"),
    known(230_035, CodeMeaning::AfterFix, "the bot may not send here"),
    known(230_049, CodeMeaning::Soon, "the message is still being sent"),
    known(230_071, CodeMeaning::NoThread, "the group has no threads"),
    known(230_072, CodeMeaning::NoThread, "the message can start no thread"),
    known(230_099, CodeMeaning::FewTimes, "the card cannot be built"),
    known(230_110, CodeMeaning::MessageGone, "the message was deleted"),
    known(232_009, CodeMeaning::ReceiverGone, "the group was dissolved"),
    known(300_020, CodeMeaning::FewTimes, "the click's token is not valid for this card"),
    known(300_030, CodeMeaning::FewTimes, "the click's token has expired"),
    known(300_040, CodeMeaning::FewTimes, "the click's token is used up"),
    known(300_090, CodeMeaning::FewTimes, "the update names no open_ids"),
    known(99_991_400, CodeMeaning::TooMany(ThrottleScope::App), "too many requests"),
    known(99_991_402, CodeMeaning::TooMany(ThrottleScope::App), "too many requests"),
    known(99_991_661, CodeMeaning::TokenRefused, "the token is missing"),
    known(99_991_663, CodeMeaning::TokenRefused, "the token is not valid"),
    known(99_991_664, CodeMeaning::TokenRefused, "the token is not valid"),
    known(99_991_665, CodeMeaning::TokenRefused, "the token is not valid"),
    known(99_991_666, CodeMeaning::TokenRefused, "the token is not valid"),
    known(99_991_668, CodeMeaning::TokenRefused, "the token is not valid"),
    known(99_991_672, CodeMeaning::AfterFix, "the app lacks a permission"),
];

/// Looks a code up.
pub(super) fn find_code(code: i64) -> Option<&'static KnownCode> {
    CODES.iter().find(|known| known.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn only_limits_and_pending_sends_are_retried_soon() {
        let passes = |known: &&KnownCode| matches!(known.meaning, CodeMeaning::Soon | CodeMeaning::TooMany(_));
        let soon: Vec<_> = CODES.iter().filter(passes).map(|known| known.code).collect();
        assert_eq!(soon, [11_020, 11_021, 11_232, 230_020, 230_049, 99_991_400, 99_991_402]);
        assert_eq!(find_code(1), None);
    }
}

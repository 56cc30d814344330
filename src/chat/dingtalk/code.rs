//! DingTalk's error codes, and what each means for the next attempt.

use crate::chat::ThrottleScope;

/// What a code means for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorMeaning {
    /// The token is refused. A new one may be accepted.
    TokenRefused,
    /// Temporary, and the call may have taken effect: try again soon.
    Soon,
    /// Too many calls: pause, and try again.
    TooMany(ThrottleScope),
    /// An operator has to change something first, or has to wait for the next month.
    AfterFix,
    /// DingTalk refuses this one message.
    FewTimes,
    /// A card with this id exists.
    CardExists,
    /// There is no card with this id.
    CardGone,
    /// Another address is registered.
    RouteTaken,
    /// The receiver no longer exists.
    ReceiverGone,
}

/// An error code of DingTalk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedCode {
    pub(super) code: &'static str,
    /// What the code means for the next attempt.
    pub(super) meaning: ErrorMeaning,
    /// For the operator.
    pub(super) text: &'static str,
}

const fn known(code: &'static str, meaning: ErrorMeaning, text: &'static str) -> NamedCode {
    NamedCode { code, meaning, text }
}

/// How the codes of too many calls begin, e.g. `…QpsLimitForApi` and `…QpsLimitForAppkeyAndApi`.
const QPS_PREFIX: &str = "Forbidden.AccessDenied.QpsLimit";
const QPS: NamedCode = known(QPS_PREFIX, ErrorMeaning::TooMany(ThrottleScope::App), "too many calls");

/// Every known code of the API, in order.
///
/// Source: <https://open.dingtalk.com/document/development/create-and-deliver-cards>,
/// <https://open.dingtalk.com/document/development/interactive-card-update-interface>,
/// <https://open.dingtalk.com/document/development/register-card-callback-address>,
/// <https://open.dingtalk.com/document/orgapp/the-robot-sends-a-group-message> and
/// <https://www.dingtalk.com/qidian/help-detail-1061621972.html>
#[rustfmt::skip]
const CODES: [NamedCode; 53] = [
    known("Forbidden.AccessDenied.AccessTokenPermissionDenied", ErrorMeaning::AfterFix, "the app lacks a permission"),
    known("Forbidden.AccessDenied.ApiCountLimitForOrg", ErrorMeaning::AfterFix, "the organization has used up its API calls of this month"),
    known("Forbidden.AccessDenied.IpNotInWhiteList", ErrorMeaning::AfterFix, "the app's settings refuse our IP address"),
    known("InvalidAuthentication", ErrorMeaning::TokenRefused, "the token is not valid"),
    known("bot.stopped", ErrorMeaning::AfterFix, "the robot is stopped"),
    known("group.disbanded", ErrorMeaning::ReceiverGone, "the group was disbanded"),
    known("invalid.openConversationId", ErrorMeaning::AfterFix, "the group's id is not valid"),
    known("invalidClientIdOrSecret", ErrorMeaning::AfterFix, "the app's Client ID or Client Secret is not valid"),
    known("invalidParameter.msg.unsupport", ErrorMeaning::FewTimes, "the robot does not send this kind of message"),
    known("invalidParameter.msgBody.invalid", ErrorMeaning::FewTimes, "the message is malformed"),
    known("invalidParameter.msgKey.empty", ErrorMeaning::FewTimes, "the message has no kind"),
    known("invalidParameter.msgKey.invalid", ErrorMeaning::FewTimes, "the kind of the message is unknown"),
    known("invalidParameter.msgParam.invalid", ErrorMeaning::FewTimes, "the message is malformed"),
    known("invalidParameter.msgParam.tooLong", ErrorMeaning::FewTimes, "the message is too long"),
    known("invalidParameter.openConversationId.invalid", ErrorMeaning::AfterFix, "the group's id is not valid"),
    known("invalidParameter.param.invalid", ErrorMeaning::FewTimes, "a parameter is malformed"),
    known("invalidParameter.robotCode.auth", ErrorMeaning::AfterFix, "the robot belongs to another app"),
    known("invalidParameter.robotCode.coolApp", ErrorMeaning::AfterFix, "the robot is not one of an internal app"),
    known("invalidParameter.robotCode.empty", ErrorMeaning::AfterFix, "the robot is not in the group"),
    known("invalidParameter.robotCode.invalid", ErrorMeaning::AfterFix, "the robot's code is not valid"),
    known("invalidParameter.robotCode.missing", ErrorMeaning::AfterFix, "the robot's code is missing"),
    known("invalidParameter.robotCode.notExsit", ErrorMeaning::AfterFix, "the app has no published robot"),
    known("invalidParameter.token.invalid", ErrorMeaning::AfterFix, "the group's token is not valid"),
    known("invalidParameter.userId.empty", ErrorMeaning::FewTimes, "the message has no receiver"),
    known("invalidParameter.userIds.empty", ErrorMeaning::FewTimes, "the message has no receiver"),
    known("invalidParameter.userIds.invalid", ErrorMeaning::FewTimes, "the receiver is unknown"),
    known("invalidParameter.userIds.overMax", ErrorMeaning::FewTimes, "the message has too many receivers"),
    known("miss.openConversationId", ErrorMeaning::AfterFix, "the group's id is missing"),
    known("param.callbackRouteKeyEmpty", ErrorMeaning::AfterFix, "the route of the callback is missing"),
    known("param.callbackRouteKeyExist", ErrorMeaning::RouteTaken, "the route of the callback leads elsewhere"),
    known("param.callbackUrlEmpty", ErrorMeaning::AfterFix, "the address of the callback is missing"),
    known("param.cardAlreadyExist", ErrorMeaning::CardExists, "the card exists"),
    known("param.cardDataAndPrivateDataBothEmpty", ErrorMeaning::FewTimes, "the update is empty"),
    known("param.cardNotExist", ErrorMeaning::CardGone, "there is no such card"),
    known("param.cardTemplateIdEmpty", ErrorMeaning::AfterFix, "the template is missing"),
    known("param.contentUnsafe", ErrorMeaning::FewTimes, "the content has not passed DingTalk's review"),
    known("param.empty", ErrorMeaning::AfterFix, "a parameter is missing"),
    known("param.invalid", ErrorMeaning::FewTimes, "a parameter is malformed"),
    known("param.openDeliverModelEmpty", ErrorMeaning::AfterFix, "the delivery names no robot"),
    known("param.openDeliverModelError", ErrorMeaning::AfterFix, "the delivery does not fit the group"),
    known("param.openSpaceIdInvalid", ErrorMeaning::AfterFix, "the group's id is not valid"),
    known("param.openSpaceModelInvalid", ErrorMeaning::FewTimes, "the properties of the group's card are malformed"),
    known("param.openSpaceModellnvalid", ErrorMeaning::FewTimes, "the properties of the group's card are malformed"),
    known("param.outTrackIdEmpty", ErrorMeaning::FewTimes, "the card has no id"),
    known("param.templateNotExist", ErrorMeaning::AfterFix, "there is no such template"),
    known("param.templateUnpublished", ErrorMeaning::AfterFix, "the template is not published"),
    known("param.userIdNotExist", ErrorMeaning::FewTimes, "a person is unknown"),
    known("system.busy", ErrorMeaning::Soon, "DingTalk is busy"),
    known("system.err", ErrorMeaning::Soon, "DingTalk has an internal error"),
    known("system.updateCallbackFailed", ErrorMeaning::Soon, "the callback could not be replaced"),
    known("template.stopped", ErrorMeaning::AfterFix, "the template is stopped"),
    known("token.notExisted", ErrorMeaning::AfterFix, "the group's token is not valid"),
    known("unknown.send.result", ErrorMeaning::Soon, "nobody knows whether the message was sent"),
];

/// Looks a code of the API up.
pub(super) fn find_named_code(code: &str) -> Option<&'static NamedCode> {
    let exact = CODES.iter().find(|known| known.code == code);
    exact.or_else(|| code.starts_with(QPS_PREFIX).then_some(&QPS))
}

/// An `errcode` of a robot's webhook. The HTTP status of a refusal is 200, too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NumberedCode {
    pub(super) code: i64,
    /// What the code means for the next attempt.
    pub(super) meaning: ErrorMeaning,
    /// For the operator.
    pub(super) text: &'static str,
}

const fn numbered(code: i64, meaning: ErrorMeaning, text: &'static str) -> NumberedCode {
    NumberedCode { code, meaning, text }
}

/// Every known `errcode`, in order.
///
/// Source: <https://open.dingtalk.com/document/orgapp/custom-robot-access>
#[rustfmt::skip]
const NUMBERED_CODES: [NumberedCode; 20] = [
    numbered(-1, ErrorMeaning::Soon, "DingTalk is busy"),
    numbered(40_035, ErrorMeaning::FewTimes, "a parameter is missing"),
    numbered(43_004, ErrorMeaning::FewTimes, "the content type is not valid"),
    numbered(90_030, ErrorMeaning::AfterFix, "the robot has used up its messages"),
    numbered(130_101, ErrorMeaning::TooMany(ThrottleScope::Channel), "more than 20 messages in a minute"),
    numbered(300_001, ErrorMeaning::AfterFix, "the access token of the URL is not valid"),
    numbered(300_005, ErrorMeaning::AfterFix, "the access token of the URL is not valid"),
    numbered(310_000, ErrorMeaning::AfterFix, "the robot's security settings refuse the message: its signature, keyword or IP address"),
    numbered(400_013, ErrorMeaning::ReceiverGone, "the group was disbanded"),
    numbered(400_101, ErrorMeaning::AfterFix, "the access token of the URL is not valid"),
    numbered(400_102, ErrorMeaning::AfterFix, "the robot is stopped"),
    numbered(400_105, ErrorMeaning::FewTimes, "the robot does not send this kind of message"),
    numbered(400_106, ErrorMeaning::ReceiverGone, "the robot was removed"),
    numbered(410_100, ErrorMeaning::TooMany(ThrottleScope::Channel), "too many messages"),
    numbered(430_101, ErrorMeaning::FewTimes, "the message has an unsafe link"),
    numbered(430_102, ErrorMeaning::FewTimes, "the message has improper text"),
    numbered(430_103, ErrorMeaning::FewTimes, "the message has an improper image"),
    numbered(430_104, ErrorMeaning::FewTimes, "the message has improper content"),
    numbered(460_101, ErrorMeaning::FewTimes, "the message is too long"),
    numbered(660_026, ErrorMeaning::TooMany(ThrottleScope::Channel), "too many messages"),
];

/// Looks an `errcode` up.
pub(super) fn find_numbered_code(code: i64) -> Option<&'static NumberedCode> {
    NUMBERED_CODES.iter().find(|known| known.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dingtalk_codes_are_sorted_and_unique() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(NUMBERED_CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn only_limits_and_busy_servers_are_retried_soon() {
        let passes = |known: &&NamedCode| matches!(known.meaning, ErrorMeaning::Soon | ErrorMeaning::TooMany(_));
        let soon: Vec<_> = CODES.iter().filter(passes).map(|known| known.code).collect();
        assert_eq!(soon, ["system.busy", "system.err", "system.updateCallbackFailed", "unknown.send.result"]);
        for code in ["QpsLimitForApi", "QpsLimitForAppkeyAndApi"] {
            let known = find_named_code(&format!("Forbidden.AccessDenied.{code}"));
            assert_eq!(known.map(|known| known.meaning), Some(ErrorMeaning::TooMany(ThrottleScope::App)));
        }
        assert_eq!((find_named_code("Forbidden.AccessDenied"), find_numbered_code(1)), (None, None));
    }
}

//! From the list of platforms to the code of each: what an `enum` of them would have to repeat.

/// Makes the list: an enum of apps and one of channels, matched exhaustively, and a struct with a field for each app's
/// configuration, secrets and state.
macro_rules! platforms {
    (
        apps { $( $(#[$attribute:meta])* $App:ident in $folder:ident, )+ }
        cards { $( $card_kind:literal is $Card:ident($card:path) of $CardApp:ident in $card_folder:ident, )+ }
        messages { $( $message_kind:literal is $Messages:ident($messages:path) of $MessagesApp:ident, )+ }
        data { $( $data_kind:literal is $Data:ident($data:path), )+ }
    ) => {
        /// An app of a chat platform, or another sender, whose people decide.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Platform {
            $( #[doc = concat!("See [`", stringify!($folder), "`].")] $App, )+
        }

        /// The tables `[platforms.NAME]`.
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct AppConfigs {
            $( $(#[$attribute])* #[doc = concat!("See [`", stringify!($folder), "`].")] pub $folder: Option<$folder::Config>, )+
        }

        /// The secrets `platforms.NAME`.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct AppSecrets {
            $( $(#[$attribute])* #[doc = concat!("See [`", stringify!($folder), "`].")] pub $folder: Option<$folder::Secrets>, )+
        }

        /// What a process remembers of each app.
        #[derive(Debug, Default)]
        pub struct AppStates {
            $( #[doc = concat!("See [`", stringify!($folder), "`].")] pub $folder: $folder::State, )+
        }

        /// Where the sender of a request gets its answer.
        #[derive(Debug)]
        pub enum ReplyTo {
            $( #[doc = concat!("See [`", stringify!($folder), "`].")] $App($folder::ReplyTo), )+
        }

        impl ReplyTo {
            /// A word for the log.
            #[must_use]
            pub fn log_label(&self) -> &'static str {
                match self { $( Self::$App(to) => to.log_label(), )+ }
            }
        }

        impl<'a> ChatContext<'a> {
            $(
                fn $folder(self) -> Option<PlatformContext<'a, $folder::Config, $folder::Secrets, $folder::State>> {
                    let (config, secrets) = (self.configs.$folder.as_ref()?, self.secrets.$folder.as_ref()?);
                    Some(PlatformContext { http: self.http, notes: self.notes, config, secrets, state: &self.states.$folder })
                }
            )+
        }

        /// What the secrets of each app must look like, in the words of their errors.
        #[must_use]
        pub fn secret_format_hints() -> Vec<String> {
            [ $( $folder::secret_format_hints(), )+ ].concat()
        }

        impl Platform {
            /// All of them.
            pub const ALL: &[Self] = &[ $( Self::$App, )+ ];

            /// The name of its table, and of its secret.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$App => $folder::NAME, )+ }
            }

            /// How its principals and its paths begin.
            #[must_use]
            pub fn realm(self) -> &'static str {
                match self { $( Self::$App => $folder::REALM, )+ }
            }

            /// What its requests look like.
            #[must_use]
            pub fn request_shape(self) -> &'static RequestShape {
                match self { $( Self::$App => &$folder::REQUEST_SHAPE, )+ }
            }

            /// What may be spent until the answer is ready.
            #[must_use]
            pub fn deadline(self) -> Duration {
                match self { $( Self::$App => $folder::DEADLINE, )+ }
            }

            /// If one user id means one human in several tenants: what to do about it.
            #[must_use]
            pub fn users_span_tenants(self) -> Option<&'static str> {
                match self { $( Self::$App => $folder::USERS_SPAN_TENANTS, )+ }
            }

            /// Whether its commands say which facts their sender saw.
            #[cfg(feature = "local")]
            #[must_use]
            pub fn can_carry_fingerprints(self) -> bool {
                match self { $( Self::$App => $folder::COMMANDS_CARRY_FINGERPRINTS, )+ }
            }

            /// Whether it is configured.
            #[must_use]
            pub fn is_configured(self, configs: &AppConfigs) -> bool {
                match self { $( Self::$App => configs.$folder.is_some(), )+ }
            }

            /// Checks its table.
            ///
            /// # Errors
            /// The key that is wrong.
            pub fn check_config(self, configs: &AppConfigs) -> Result<(), KeyProblem> {
                match self { $( Self::$App => configs.$folder.as_ref().map_or(Ok(()), $folder::check_config), )+ }
            }

            /// Checks its secret.
            ///
            /// # Errors
            /// The key that is missing or wrong.
            pub fn check_secrets(self, configs: &AppConfigs, secrets: &AppSecrets) -> Result<(), KeyProblem> {
                match self {
                    $( Self::$App => match (&configs.$folder, &secrets.$folder) {
                        (None, _) => Ok(()),
                        (Some(_), None) => KeyProblem::err_at(concat!("platforms.", stringify!($folder)), "missing"),
                        (Some(config), Some(secrets)) => $folder::check_secrets(config, secrets),
                    }, )+
                }
            }

            /// Refuses a principal that can send no request; says why.
            ///
            /// # Errors
            /// Why it cannot.
            pub fn check_principal(self, configs: &AppConfigs, principal: &Principal) -> Result<(), String> {
                match self { $( Self::$App => $folder::check_principal(configs.$folder.as_ref(), principal), )+ }
            }

            /// Tenants that are part of another one, as realms of principals.
            #[must_use]
            pub fn merged_tenants(self, configs: &AppConfigs) -> Vec<(String, String)> {
                match self { $( Self::$App => configs.$folder.as_ref().map($folder::merged_tenants).unwrap_or_default(), )+ }
            }

            /// Those who sign its requests.
            #[must_use]
            pub fn request_signers(self, configs: &AppConfigs, secrets: &AppSecrets) -> Vec<RequestSigner> {
                match self {
                    $( Self::$App => match (&configs.$folder, &secrets.$folder) {
                        (Some(config), Some(secrets)) => $folder::request_signers(config, secrets),
                        (None, _) | (_, None) => vec![],
                    }, )+
                }
            }

            /// The longest that a button can carry, in characters.
            #[must_use]
            pub fn max_binding_chars(self) -> usize {
                match self { $( Self::$App => $folder::MAX_BINDING_CHARS, )+ }
            }

            /// Whether the reply to a click can redraw its card.
            #[must_use]
            pub fn can_redraw_in_reply(self) -> bool {
                match self { $( Self::$App => $folder::CAN_REDRAW_IN_REPLY, )+ }
            }

            /// What its binding keys are derived from, the newest first.
            #[must_use]
            pub fn binding_key_material(self, secrets: &AppSecrets) -> Vec<Vec<u8>> {
                match self {
                    $( Self::$App => secrets.$folder.as_ref().map($folder::binding_key_material).unwrap_or_default(), )+
                }
            }

            /// What shows without a secret that a request is not authentic.
            ///
            /// # Errors
            /// Why it is not.
            pub fn precheck_request(self, request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
                match self { $( Self::$App => $folder::precheck_request(request, now), )+ }
            }

            /// Makes sure of the sender.
            ///
            /// # Errors
            /// Why it is not authentic.
            pub async fn verify(
                self,
                context: ChatContext<'_>,
                request: &Request<Bytes>,
                now: Timestamp,
            ) -> Result<Authentic, Unauthentic> {
                match self {
                    $( Self::$App => match context.$folder() {
                        Some(access) => $folder::verify(access, request, now).await,
                        None => Err(Unauthentic::SignatureMismatch),
                    }, )+
                }
            }

            /// Understands a request.
            ///
            /// # Errors
            /// What cannot be understood.
            pub fn parse(self, configs: &AppConfigs, authentic: Authentic) -> Result<Incoming<ReplyTo>, MalformedRequest> {
                match self {
                    $( Self::$App => match &configs.$folder {
                        Some(config) => $folder::parse(config, authentic).map(|it| it.map_reply_to(ReplyTo::$App)),
                        None => Err(MalformedRequest("not configured".into())),
                    }, )+
                }
            }

            /// Tells how the platform contradicts the configuration, as far as it answers.
            pub async fn config_errors(self, context: ChatContext<'_>) -> Vec<KeyProblem> {
                match self {
                    $( Self::$App => match context.$folder() {
                        Some(access) => $folder::config_errors(access).await.unwrap_or_default(),
                        None => vec![],
                    }, )+
                }
            }

            /// Tells the platform where its requests go, where it can be told by a call. Returns what is left to do.
            ///
            /// # Errors
            /// What the platform outgoing.
            #[cfg(feature = "local")]
            pub async fn register_webhook(self, context: ChatContext<'_>, url: &Url) -> Result<String, String> {
                match self {
                    $( Self::$App => match context.$folder() {
                        Some(access) => $folder::register_webhook(access, url).await,
                        None => Err(format!("{} is not configured, or has no secret", self.name())),
                    }, )+
                }
            }

            /// A request as the platform would send it.
            ///
            /// # Errors
            /// What the configuration or the secrets lack for it.
            #[cfg(feature = "local")]
            pub fn sign(
                self,
                configs: &AppConfigs,
                secrets: &AppSecrets,
                spec: &EventSpec,
                now: Timestamp,
            ) -> Result<SignedRequest, String> {
                match self {
                    $( Self::$App => match (&configs.$folder, &secrets.$folder) {
                        (Some(config), Some(secrets)) => $folder::sign(config, secrets, spec, now),
                        (None, _) | (_, None) => Err(format!("{} is not configured, or has no secret", self.name())),
                    }, )+
                }
            }
        }

        impl ReplyTo {
            /// Asks the sender for a reason.
            ///
            /// # Errors
            /// When the platform does not take the question.
            pub async fn ask_reason(
                &self,
                context: ChatContext<'_>,
                click: &Click,
                verdict: Verdict,
                timeout: Duration,
            ) -> Result<AskOutcome, DeliveryError> {
                match self {
                    $( Self::$App(to) => match context.$folder() {
                        Some(access) => $folder::ask_reason(access, to, click, verdict, timeout).await,
                        None => Ok(AskOutcome::Impossible),
                    }, )+
                }
            }

            /// Tells the sender. Returns the reply to the request; what is told elsewhere has been sent.
            pub async fn reply(self, context: ChatContext<'_>, outgoing: &Outgoing<'_>) -> Response<String> {
                match self {
                    $( Self::$App(to) => match context.$folder() {
                        Some(access) => $folder::reply(access, to, outgoing).await,
                        None => response::empty_response(),
                    }, )+
                }
            }
        }

        /// Where notifications go. URLs and tokens are in the secrets store.
        #[derive(Debug, Clone, Deserialize)]
        #[serde(tag = "kind")]
        pub enum Channel {
            $( #[doc = concat!("`", $card_kind, "`")] #[serde(rename = $card_kind)] $Card($card), )+
            $( #[doc = concat!("`", $message_kind, "`")] #[serde(rename = $message_kind)] $Messages($messages), )+
            $( #[doc = concat!("`", $data_kind, "`")] #[serde(rename = $data_kind)] $Data($data), )+
        }

        impl Channel {
            /// What it can do.
            #[must_use]
            pub fn capabilities(&self) -> Capabilities {
                match self {
                    $( Self::$Card(_) => <$card>::CAPABILITIES, )+
                    $( Self::$Messages(_) => <$messages>::CAPABILITIES, )+
                    $( Self::$Data(_) => <$data>::CAPABILITIES, )+
                }
            }

            /// The app that hears of clicks there.
            #[must_use]
            pub fn app(&self) -> Option<Platform> {
                match self {
                    $( Self::$Card(_) => Some(Platform::$CardApp), )+
                    $( Self::$Messages(_) => Some(Platform::$MessagesApp), )+
                    $( Self::$Data(_) => None, )+
                }
            }

            /// The name of its kind.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $( Self::$Card(_) => $card_kind, )+
                    $( Self::$Messages(_) => $message_kind, )+
                    $( Self::$Data(_) => $data_kind, )+
                }
            }

            /// What it is called on its platform; nothing if a URL says so.
            #[must_use]
            pub fn id(&self) -> Option<&str> {
                match self {
                    $( Self::$Card(channel) => Some(channel.id()), )+
                    $( Self::$Messages(_) => None, )+
                    $( Self::$Data(_) => None, )+
                }
            }

            /// The key that says what it is called on its platform.
            #[must_use]
            pub fn id_key(&self) -> &'static str {
                match self {
                    $( Self::$Card(_) => <$card>::ID_KEY, )+
                    $( Self::$Messages(_) => "kind", )+
                    $( Self::$Data(_) => "kind", )+
                }
            }

            /// The app that it needs and that is not configured.
            #[must_use]
            pub fn missing_app(&self, configs: &AppConfigs) -> Option<&'static str> {
                match self {
                    $( Self::$Card(_) => configs.$card_folder.is_none().then_some($card_folder::NAME), )+
                    $( Self::$Messages(_) => None, )+
                    $( Self::$Data(_) => None, )+
                }
            }

            /// Checks its id.
            ///
            /// # Errors
            /// Why it cannot be one.
            pub fn check_id(&self) -> Result<(), &'static str> {
                match self {
                    $( Self::$Card(channel) => channel.check_id(), )+
                    $( Self::$Messages(_) => Ok(()), )+
                    $( Self::$Data(_) => Ok(()), )+
                }
            }

            /// Checks that the secrets have what it needs, `endpoint` being its own.
            ///
            /// # Errors
            /// The key that is missing or wrong; without a first part, it is below the channel's own.
            pub fn check_secrets(
                &self,
                secrets: &AppSecrets,
                key: &str,
                endpoint: Option<&ChannelSecrets>,
            ) -> Result<(), KeyProblem> {
                match self {
                    $( Self::$Card(_) => <$card>::check_secrets(secrets.$card_folder.as_ref()), )+
                    $( Self::$Messages(_) => ChannelSecrets::validate_endpoint(endpoint, key, <$messages>::check_endpoint), )+
                    $( Self::$Data(_) => ChannelSecrets::validate_endpoint(endpoint, key, <$data>::check_endpoint), )+
                }
            }

            /// Posts a message. Returns the platform's name for it, if it has one. `key` is the same for every try, of at
            /// most 50 letters, digits and `-`: a platform that can posts it once.
            ///
            /// # Errors
            /// What the platform outgoing, and what it means for the next try.
            pub async fn post(
                &self,
                context: ChatContext<'_>,
                name: &str,
                message: &Message,
                key: &str,
            ) -> Result<Option<String>, DeliveryError> {
                match self {
                    $( Self::$Card(channel) => {
                        let access = context.$card_folder().ok_or_else(DeliveryError::no_app)?;
                        channel.post(access, message, key).await.map(Some)
                    } )+
                    $( Self::$Messages(channel) => {
                        channel.post(context.http, context.require_endpoint(name)?, message).await.map(|()| None)
                    } )+
                    $( Self::$Data(_) => Err(DeliveryError::unsupported_message()), )+
                }
            }

            /// Redraws a message.
            ///
            /// # Errors
            /// As [`Channel::post`].
            pub async fn update(
                &self,
                context: ChatContext<'_>,
                reference: &str,
                message: &Message,
            ) -> Result<UpdateOutcome, DeliveryError> {
                match self {
                    $( Self::$Card(channel) => {
                        let access = context.$card_folder().ok_or_else(DeliveryError::no_app)?;
                        channel.update(access, reference, message).await
                    } )+
                    $( Self::$Messages(_) => Ok(UpdateOutcome::Gone), )+
                    $( Self::$Data(_) => Ok(UpdateOutcome::Gone), )+
                }
            }

            /// Says something below a message; what is urgent, in the channel, too. `key` as for [`Channel::post`].
            ///
            /// # Errors
            /// As [`Channel::post`].
            pub async fn reply_below(
                &self,
                context: ChatContext<'_>,
                reference: &str,
                message: &Message,
                urgent: bool,
                key: &str,
            ) -> Result<(), DeliveryError> {
                match self {
                    $( Self::$Card(channel) => {
                        let access = context.$card_folder().ok_or_else(DeliveryError::no_app)?;
                        channel.reply_below(access, reference, message, urgent, key).await
                    } )+
                    $( Self::$Messages(_) => Err(DeliveryError::unsupported_message()), )+
                    $( Self::$Data(_) => Err(DeliveryError::unsupported_message()), )+
                }
            }

            /// Tells a program.
            ///
            /// # Errors
            /// As [`Channel::post`].
            pub async fn send_notification(
                &self,
                context: ChatContext<'_>,
                name: &str,
                approval: &Approval,
                notification: &Notification,
            ) -> Result<(), DeliveryError> {
                match self {
                    $( Self::$Card(_) => Err(DeliveryError::unsupported_message()), )+
                    $( Self::$Messages(_) => Err(DeliveryError::unsupported_message()), )+
                    $( Self::$Data(channel) => {
                        channel.send_notification(context.http, context.require_endpoint(name)?, approval, notification).await
                    } )+
                }
            }

            /// Looks whether it could be posted to; with `test`, by posting it. Returns what showed that.
            ///
            /// # Errors
            /// What is wrong.
            pub async fn probe(
                &self,
                context: ChatContext<'_>,
                name: &str,
                test: Option<&Message>,
            ) -> Result<&'static str, ProbeError> {
                match self {
                    $( Self::$Card(channel) => {
                        let access = context.$card_folder().ok_or_else(DeliveryError::no_app)?;
                        channel.probe(access, test).await
                    } )+
                    $( Self::$Messages(channel) => {
                        channel.probe(context.http, context.require_endpoint(name)?, test).await
                    } )+
                    $( Self::$Data(channel) => {
                        channel.probe(context.http, context.require_endpoint(name)?, test).await
                    } )+
                }
            }
        }
    };
}

pub(super) use platforms;

//! From the list of apps to the code of each: everything that an enum of apps would have to repeat.

/// Makes the enum [`Platform`] of all apps, and structs with a field for the configuration, secrets and state of each.
macro_rules! apps {
    ($( $(#[$attribute:meta])* $App:ident in $folder:ident, )+) => {
        /// An app of a chat platform, or another sender whose people decide.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Platform {
            $( #[doc = concat!("See [`", stringify!($folder), "`].")] $App, )+
        }

        /// The tables `[platforms.NAME]`.
        #[derive(Debug, Clone, Default, Deserialize)]
        #[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields)]
        pub struct AppConfigs {
            $( $(#[$attribute])* #[doc = concat!("See [`", stringify!($folder), "`].")] pub $folder: Option<$folder::Config>, )+
        }

        /// The secrets `platforms.NAME`.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields)]
        pub struct AppSecrets {
            $( $(#[$attribute])* #[doc = concat!("See [`", stringify!($folder), "`].")] pub $folder: Option<$folder::Secrets>, )+
        }

        /// What this process has cached for each app.
        #[derive(Debug, Default)]
        pub struct AppStates {
            $( #[doc = concat!("See [`", stringify!($folder), "`].")] pub $folder: $folder::State, )+
        }

        /// Where the sender of a request gets the answer.
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

            /// A link to a message, by its reference. `None` if the platform has none.
            #[must_use]
            pub fn message_link(&self, reference: &str) -> Option<String> {
                let place = MessageRef::parse(reference)?;
                match self { $( Self::$App(to) => to.message_link(&place), )+ }
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

        /// The beginnings of the errors about the form of a secret. These errors contain no secret.
        #[must_use]
        pub fn secret_format_hints() -> Vec<String> {
            [ $( $folder::secret_format_hints(), )+ ].concat()
        }

        impl Platform {
            /// Every app.
            pub const ALL: &[Self] = &[ $( Self::$App, )+ ];

            /// The name of its table, and of its secret.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$App => $folder::NAME, )+ }
            }

            /// Its name for people.
            #[cfg(feature = "local")]
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $( Self::$App => $folder::TITLE, )+ }
            }

            /// The first part of its principals and paths.
            #[must_use]
            pub fn realm(self) -> &'static str {
                match self { $( Self::$App => $folder::REALM, )+ }
            }

            /// What its requests look like.
            #[must_use]
            pub fn request_shape(self) -> &'static RequestShape {
                match self { $( Self::$App => &$folder::REQUEST_SHAPE, )+ }
            }

            /// The time until a command must be carried out.
            #[must_use]
            pub fn deadline(self) -> Duration {
                match self { $( Self::$App => $folder::DEADLINE, )+ }
            }

            /// The time until the sender must have the answer.
            #[must_use]
            pub fn answer_deadline(self) -> Duration {
                match self { $( Self::$App => $folder::ANSWER_DEADLINE, )+ }
            }

            /// Whether a request only tests the address. It is unsigned, carries nothing else, and gets an empty answer.
            #[must_use]
            pub fn is_address_test(self, request: &Request<Bytes>) -> bool {
                match self { $( Self::$App => $folder::is_address_test(request), )+ }
            }

            /// What people can do by commands in words.
            #[must_use]
            pub fn command_scope(self) -> CommandScope {
                match self { $( Self::$App => $folder::COMMAND_SCOPE, )+ }
            }

            /// If a user has the same id in several tenants: how to configure that.
            #[must_use]
            pub fn users_span_tenants(self) -> Option<&'static str> {
                match self { $( Self::$App => $folder::USERS_SPAN_TENANTS, )+ }
            }

            /// Whether its commands carry the fingerprint that the sender saw.
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

            /// Checks its table in the configuration.
            ///
            /// # Errors
            /// The key that is wrong.
            pub fn check_config(self, configs: &AppConfigs) -> Result<(), KeyProblem> {
                match self { $( Self::$App => configs.$folder.as_ref().map_or(Ok(()), $folder::check_config), )+ }
            }

            /// Checks its table in the secrets.
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

            /// Refuses a principal that can send no request.
            ///
            /// # Errors
            /// Why it cannot.
            pub fn check_principal(self, configs: &AppConfigs, principal: &Principal) -> Result<(), String> {
                match self { $( Self::$App => $folder::check_principal(configs.$folder.as_ref(), principal), )+ }
            }

            /// Tenants whose users belong to another tenant.
            #[must_use]
            pub fn merged_tenants(self, configs: &AppConfigs) -> Vec<MergedTenant> {
                match self { $( Self::$App => configs.$folder.as_ref().map($folder::merged_tenants).unwrap_or_default(), )+ }
            }

            /// The senders that sign its requests.
            #[must_use]
            pub fn request_signers(self, configs: &AppConfigs, secrets: &AppSecrets) -> Vec<RequestSigner> {
                match self {
                    $( Self::$App => match (&configs.$folder, &secrets.$folder) {
                        (Some(config), Some(secrets)) => $folder::request_signers(config, secrets),
                        (None, _) | (_, None) => vec![],
                    }, )+
                }
            }

            /// The longest binding that a button can carry, in characters.
            #[must_use]
            pub fn max_binding_chars(self) -> usize {
                match self { $( Self::$App => $folder::MAX_BINDING_CHARS, )+ }
            }

            /// Which cards the reply to a click can update.
            #[must_use]
            pub fn reply_redraw(self) -> ReplyRedraw {
                match self { $( Self::$App => $folder::REPLY_REDRAW, )+ }
            }

            /// The secrets that its binding keys are derived from, the newest first.
            #[must_use]
            pub fn binding_key_material(self, secrets: &AppSecrets) -> Vec<Vec<u8>> {
                match self {
                    $( Self::$App => secrets.$folder.as_ref().map($folder::binding_key_material).unwrap_or_default(), )+
                }
            }

            /// Refuses what is not authentic under any secret.
            ///
            /// # Errors
            /// Why it is not.
            pub fn precheck_request(self, request: &Request<Bytes>, now: Timestamp) -> Result<(), Unauthentic> {
                match self { $( Self::$App => $folder::precheck_request(request, now), )+ }
            }

            /// Verifies the sender.
            ///
            /// # Errors
            /// Why it is not authentic, or why nobody knows.
            pub async fn verify(
                self,
                context: ChatContext<'_>,
                request: &Request<Bytes>,
                now: Timestamp,
            ) -> Result<Authentic, VerifyError> {
                match self {
                    $( Self::$App => match context.$folder() {
                        Some(access) => $folder::verify(access, request, now).await.map_err(VerifyError::from),
                        None => Err(Unauthentic::SignatureMismatch { keys: 0 }.into()),
                    }, )+
                }
            }

            /// Keeps what a request says about the platform itself, for example where a conversation is.
            pub async fn learn(self, context: ChatContext<'_>, authentic: &Authentic) {
                match self {
                    $( Self::$App => if let Some(access) = context.$folder() {
                        $folder::learn(access, authentic).await;
                    }, )+
                }
            }

            /// Parses a request.
            ///
            /// # Errors
            /// What is not understood.
            pub fn parse(self, configs: &AppConfigs, authentic: Authentic) -> Result<Incoming<ReplyTo>, MalformedRequest> {
                match self {
                    $( Self::$App => match &configs.$folder {
                        Some(config) => $folder::parse(config, authentic).map(|it| it.map_reply_to(ReplyTo::$App)),
                        None => Err(MalformedRequest::new("not configured")),
                    }, )+
                }
            }

            /// Where the platform contradicts the configuration. Empty if the platform does not answer.
            pub async fn config_errors(self, context: ChatContext<'_>) -> Vec<KeyProblem> {
                match self {
                    $( Self::$App => match context.$folder() {
                        Some(access) => $folder::config_errors(access).await.unwrap_or_default(),
                        None => vec![],
                    }, )+
                }
            }

            /// Registers the webhook, if the platform has a call for that. Returns what an operator still has to do.
            ///
            /// # Errors
            /// What the platform refuses.
            #[cfg(feature = "local")]
            pub async fn register_webhook(self, context: ChatContext<'_>, url: &Url) -> Result<String, String> {
                match self {
                    $( Self::$App => match context.$folder() {
                        Some(access) => $folder::register_webhook(access, url).await,
                        None => Err(format!("{} is not configured, or has no secret", self.name())),
                    }, )+
                }
            }

            /// Signs a command as the platform would.
            ///
            /// # Errors
            /// What is missing in the configuration or the secrets.
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
            /// When the platform refuses to ask.
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

            /// Answers the sender, by `until`. Returns the HTTP response; answers that go elsewhere have been sent.
            pub async fn reply(
                self,
                context: ChatContext<'_>,
                outgoing: &Outgoing<'_>,
                until: Instant,
            ) -> Response<String> {
                match self {
                    $( Self::$App(to) => match context.$folder() {
                        Some(access) => $folder::reply(access, to, outgoing, until).await,
                        None => response::empty_response(),
                    }, )+
                }
            }
        }
    };
}

pub(super) use apps;

//! From the list of channels to the code of each: everything that an enum of channels would have to repeat.

/// Makes the enum [`Channel`] of all kinds of channels.
macro_rules! channels {
    (
        cards { $( $card_kind:literal is $Card:ident($card:path) of $CardApp:ident in $card_folder:ident, )+ }
        messages { $( $message_kind:literal is $Messages:ident($messages:path) of $MessagesApp:ident, )+ }
        data { $( $data_kind:literal is $Data:ident($data:path), )+ }
    ) => {
        /// Where notifications go. URLs and tokens are in the secrets store.
        #[derive(Debug, Clone, Deserialize)]
        #[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
        #[serde(tag = "kind")]
        pub enum Channel {
            $( #[doc = concat!("`", $card_kind, "`")] #[serde(rename = $card_kind)] $Card($card), )+
            $( #[doc = concat!("`", $message_kind, "`")] #[serde(rename = $message_kind)] $Messages($messages), )+
            $( #[doc = concat!("`", $data_kind, "`")] #[serde(rename = $data_kind)] $Data($data), )+
        }

        /// Every kind of channel.
        #[cfg(feature = "local")]
        pub const CHANNEL_KINDS: &[ChannelKind] = &[
            $( ChannelKind { name: $card_kind, app: Some(Platform::$CardApp), can: <$card>::CAPABILITIES }, )+
            $( ChannelKind { name: $message_kind, app: Some(Platform::$MessagesApp), can: <$messages>::CAPABILITIES }, )+
            $( ChannelKind { name: $data_kind, app: None, can: <$data>::CAPABILITIES }, )+
        ];

        impl Channel {
            /// What the channel can do.
            #[must_use]
            pub fn capabilities(&self) -> Capabilities {
                match self {
                    $( Self::$Card(_) => <$card>::CAPABILITIES, )+
                    $( Self::$Messages(_) => <$messages>::CAPABILITIES, )+
                    $( Self::$Data(_) => <$data>::CAPABILITIES, )+
                }
            }

            /// The app that receives clicks in the channel.
            #[must_use]
            pub fn app(&self) -> Option<Platform> {
                match self {
                    $( Self::$Card(_) => Some(Platform::$CardApp), )+
                    $( Self::$Messages(_) => Some(Platform::$MessagesApp), )+
                    $( Self::$Data(_) => None, )+
                }
            }

            /// The value of `kind` in the configuration.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $( Self::$Card(_) => $card_kind, )+
                    $( Self::$Messages(_) => $message_kind, )+
                    $( Self::$Data(_) => $data_kind, )+
                }
            }

            /// The platform's id of the channel; `None` if a URL names it.
            #[must_use]
            pub fn id(&self) -> Option<&str> {
                match self {
                    $( Self::$Card(channel) => Some(channel.id()), )+
                    $( Self::$Messages(_) => None, )+
                    $( Self::$Data(_) => None, )+
                }
            }

            /// The key of [`Channel::id`] in the configuration.
            #[must_use]
            pub fn id_key(&self) -> &'static str {
                match self {
                    $( Self::$Card(_) => <$card>::ID_KEY, )+
                    $( Self::$Messages(_) => "kind", )+
                    $( Self::$Data(_) => "kind", )+
                }
            }

            /// The app that the channel requires, if it is not configured.
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
            /// Why it is not an id.
            pub fn check_id(&self) -> Result<(), &'static str> {
                match self {
                    $( Self::$Card(channel) => channel.check_id(), )+
                    $( Self::$Messages(_) => Ok(()), )+
                    $( Self::$Data(_) => Ok(()), )+
                }
            }

            /// Checks that the secrets have what the channel requires. `endpoint` is the channel's own.
            ///
            /// # Errors
            /// The key that is missing or wrong.
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

            /// Which limits its posts have. `name` is its name in the configuration.
            #[must_use]
            pub fn lane(&self, name: &str) -> PostLane {
                let channel = format!("{}/{}", self.kind(), self.id().unwrap_or(name));
                let app = self.app().filter(|_| self.id().is_some()).map(Platform::realm);
                PostLane { channel, app, pace: self.capabilities().pace }
            }

            /// Posts a message. Returns where it is, if the platform says so.
            ///
            /// # Errors
            /// The platform's refusal, and when to try again.
            pub async fn post(
                &self,
                context: ChatContext<'_>,
                name: &str,
                message: &Message,
                attempt: PostAttempt<'_>,
            ) -> Result<Option<String>, DeliveryError> {
                match self {
                    $( Self::$Card(channel) => {
                        let access = context.$card_folder().ok_or_else(DeliveryError::no_app)?;
                        channel.post(access, message, attempt).await.map(|posted| Some(posted.to_string()))
                    } )+
                    $( Self::$Messages(channel) => {
                        channel.post(context.http, context.require_endpoint(name)?, message).await.map(|()| None)
                    } )+
                    $( Self::$Data(_) => Err(DeliveryError::unsupported_message()), )+
                }
            }

            /// Updates a message.
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
                        // The configuration may name another channel since.
                        match MessageRef::parse(reference).filter(|place| place.channel == channel.id()) {
                            Some(place) => channel.update(access, &place, message).await,
                            None => Ok(UpdateOutcome::Gone),
                        }
                    } )+
                    $( Self::$Messages(_) => Ok(UpdateOutcome::Gone), )+
                    $( Self::$Data(_) => Ok(UpdateOutcome::Gone), )+
                }
            }

            /// Deletes a message.
            ///
            /// # Errors
            /// As [`Channel::post`].
            pub async fn delete(&self, context: ChatContext<'_>, reference: &str) -> Result<(), DeliveryError> {
                match self {
                    $( Self::$Card(channel) => {
                        let access = context.$card_folder().ok_or_else(DeliveryError::no_app)?;
                        let place = MessageRef::parse(reference).ok_or_else(DeliveryError::malformed_reference)?;
                        channel.delete(access, &place).await
                    } )+
                    $( Self::$Messages(_) => Err(DeliveryError::unsupported_message()), )+
                    $( Self::$Data(_) => Err(DeliveryError::unsupported_message()), )+
                }
            }

            /// Posts to the thread of a message, and to the channel too if `urgent`. Without threads, posts to the channel.
            ///
            /// # Errors
            /// As [`Channel::post`].
            pub async fn reply_below(
                &self,
                context: ChatContext<'_>,
                reference: &str,
                message: &Message,
                urgent: bool,
                attempt: PostAttempt<'_>,
            ) -> Result<(), DeliveryError> {
                match self {
                    $( Self::$Card(channel) => {
                        let access = context.$card_folder().ok_or_else(DeliveryError::no_app)?;
                        let place = MessageRef::parse(reference).ok_or_else(DeliveryError::malformed_reference)?;
                        channel.reply_below(access, &place, message, urgent, attempt).await
                    } )+
                    $( Self::$Messages(_) => Err(DeliveryError::unsupported_message()), )+
                    $( Self::$Data(_) => Err(DeliveryError::unsupported_message()), )+
                }
            }

            /// Sends a notification to a program.
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

            /// Checks whether the channel can be posted to; with `test`, by posting it. Returns what proved that.
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

pub(super) use channels;

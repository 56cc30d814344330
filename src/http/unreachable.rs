//! Why a server gives no answer, in words, and what an operator should check. The errors of libraries hide the reason behind
//! several causes.

use std::error::Error;
use std::{fmt, io};

use rustls::CertificateError;

/// Why a server gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// DNS has no address for the name, or does not answer.
    Name,
    /// Nothing listens on the port.
    Refused,
    /// No route leads to the address.
    NoRoute,
    /// The connection did not open in time.
    NoConnection,
    /// The connection opened, but no answer came in time.
    Silent,
    /// The certificate of the server is issued by an authority that is not trusted.
    UntrustedCertificate,
    /// The certificate of the server has expired, or is not yet valid.
    OutdatedCertificate,
    /// The certificate of the server is for another name.
    OtherCertificate,
    /// The two sides agree on no TLS connection.
    Tls,
    /// The connection broke before the answer.
    Broken,
}

impl Unreachable {
    const ALL: [Self; 10] = [
        Self::Name,
        Self::Refused,
        Self::NoRoute,
        Self::NoConnection,
        Self::Silent,
        Self::UntrustedCertificate,
        Self::OutdatedCertificate,
        Self::OtherCertificate,
        Self::Tls,
        Self::Broken,
    ];

    /// The reason behind an error of the HTTP client.
    #[must_use]
    pub fn of(error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = cause {
            if let Some(known) = Self::of_cause(error) {
                return known;
            }
            cause = error.source();
        }
        match (error.is_timeout(), error.is_connect()) {
            (true, true) => Self::NoConnection,
            (true, false) => Self::Silent,
            (false, _) => Self::Broken,
        }
    }

    fn of_cause(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(tls));
        }
        // The type of this error is private.
        if error.to_string() == "dns error" {
            return Some(Self::Name);
        }
        let io = error.downcast_ref::<io::Error>()?;
        // `source` of the outer error skips the inner one.
        if let Some(inner) = io.get_ref() {
            return Self::of_cause(inner);
        }
        // Other kinds have causes of their own, or say no more than the error of the client.
        if io.kind() == io::ErrorKind::ConnectionRefused {
            Some(Self::Refused)
        } else if [io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable].contains(&io.kind()) {
            Some(Self::NoRoute)
        } else {
            None
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(problem) = error else { return Self::Tls };
        let is = |others: &[CertificateError]| others.contains(problem);
        if is(&[CertificateError::UnknownIssuer]) {
            Self::UntrustedCertificate
        } else if is(&[CertificateError::Expired, CertificateError::NotValidYet])
            || matches!(problem, CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. })
        {
            Self::OutdatedCertificate
        } else if is(&[CertificateError::NotValidForName])
            || matches!(problem, CertificateError::NotValidForNameContext { .. })
        {
            Self::OtherCertificate
        } else {
            Self::Tls
        }
    }

    /// The reason that a text names in the words of [`Unreachable`].
    #[must_use]
    pub fn named_in(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| text.contains(&reason.to_string()))
    }

    /// What an operator should check.
    #[must_use]
    pub fn fix(self) -> &'static str {
        match self {
            Self::Name => "Check the name, and the DNS of this machine.",
            Self::Refused => "Check the address and the port: nothing listens there.",
            Self::NoRoute | Self::NoConnection => "Check the address, the network, and the firewalls on the way.",
            Self::Silent | Self::Broken => "Check the network and the proxies on the way, and run the doctor again.",
            Self::UntrustedCertificate => {
                "Check the address. If the authority is yours, name its certificate in PEERGATE_CA_FILE."
            }
            Self::OutdatedCertificate => "Check the clock of this machine, and the certificate of the server.",
            Self::OtherCertificate => "Check the address: another server answers there.",
            Self::Tls => "Check the address, and that the server speaks TLS 1.2 or 1.3 there.",
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the name cannot be resolved",
            Self::Refused => "the connection is refused",
            Self::NoRoute => "there is no route to the address",
            Self::NoConnection => "no connection opens in time",
            Self::Silent => "no answer comes in time",
            Self::UntrustedCertificate => "the authority of the TLS certificate is not trusted",
            Self::OutdatedCertificate => "the TLS certificate has expired or is not yet valid",
            Self::OtherCertificate => "the TLS certificate is for another name",
            Self::Tls => "no TLS connection is possible",
            Self::Broken => "the connection breaks",
        })
    }
}

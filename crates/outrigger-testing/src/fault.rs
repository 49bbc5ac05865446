//! The ways to misbehave.

use std::fmt;
use std::str::FromStr;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One way for a plugin to misbehave.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// The argument that makes the misbehaving plugin show this fault.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Fault::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    /// Prints something other than a handshake line, and waits.
    GarbageLine = "garbage-line",
    /// Prints bytes without a line end for ever.
    EndlessLine = "endless-line",
    /// Prints short lines that are no handshake for ever.
    StdoutFlood = "stdout-flood",
    /// Prints its line byte by byte, and serves.
    SlowLine = "slow-line",
    /// Prints its line so slowly that it never ends.
    CrawlingLine = "crawling-line",
    /// Prints nothing and waits.
    Silence = "silence",
    /// Prints a whole line except for its end, and waits.
    LineWithoutEnd = "line-without-end",
    /// Prints a line with a NUL in the address.
    NulInLine = "nul-in-line",
    /// Prints a line that is not UTF-8.
    LineNotUtf8 = "line-not-utf8",
    /// Prints an empty line before the right one.
    EmptyFirstLine = "empty-first-line",
    /// Announces another core protocol.
    WrongCoreVersion = "wrong-core-version",
    /// Announces an app protocol that was not offered.
    WrongAppVersion = "wrong-app-version",
    /// Announces a core protocol that is no number.
    CoreVersionNotANumber = "core-version-not-a-number",
    /// Announces an app protocol that is no number.
    AppVersionNotANumber = "app-version-not-a-number",
    /// Prints three fields.
    TooFewFields = "too-few-fields",
    /// Announces a network that does not exist.
    ForeignNetwork = "foreign-network",
    /// Announces an empty address.
    AddressMissing = "address-missing",
    /// Announces an address longer than any.
    AddressTooLong = "address-too-long",
    /// Announces a socket that does not exist.
    SocketMissing = "socket-missing",
    /// Announces a TCP port where nothing listens.
    PortClosed = "port-closed",
    /// Announces a protocol that nobody speaks.
    ForeignProtocol = "foreign-protocol",
    /// Announces a certificate that is not base64.
    CertificateNotBase64 = "certificate-not-base64",
    /// Announces base64 that is no certificate, to a host that wants one.
    CertificateHollow = "certificate-hollow",
    /// Announces no certificate to a host that wants one.
    CertificateMissing = "certificate-missing",
    /// Announces a certificate to a host that wants none.
    CertificateUnasked = "certificate-unasked",
    /// Announces no multiplexed broker to a host that wants one.
    MuxMissing = "mux-missing",
    /// Announces something that is neither yes nor no.
    MuxNotABoolean = "mux-not-a-boolean",
    /// Exits with status 0 before its handshake.
    ExitsBeforeHandshake = "exits-before-handshake",
    /// Complains on stderr and exits with status 3 before its handshake.
    FailsBeforeHandshake = "fails-before-handshake",
    /// Is killed by a signal before its handshake.
    DiesBeforeHandshake = "dies-before-handshake",
    /// Exits with status 3 in the middle of its handshake line.
    ExitsDuringHandshake = "exits-during-handshake",
    /// Exits with status 3 right after its handshake line.
    ExitsAfterHandshake = "exits-after-handshake",
    /// Exits before its handshake and leaves a child that holds its pipes.
    ExitsAndPipesAreHeld = "exits-and-pipes-are-held",
    /// Closes stdout without a line and stays.
    StdoutClosed = "stdout-closed",
    /// Prints 1 GiB of lines to stderr before its handshake, and serves.
    StderrFloodFirst = "stderr-flood-first",
    /// Prints a line of 1 GiB to stderr before its handshake, and serves.
    StderrLineEndless = "stderr-line-endless",
    /// Listens and never accepts.
    NeverAccepts = "never-accepts",
    /// Accepts and closes the connection.
    AcceptsAndCloses = "accepts-and-closes",
    /// Accepts and says nothing.
    AcceptsAndSaysNothing = "accepts-and-says-nothing",
    /// Accepts and sends half a frame.
    AcceptsAndTrickles = "accepts-and-trickles",
    /// Answers HTTP/2 with garbage.
    AnswersGarbage = "answers-garbage",
    /// Answers HTTP/2 with HTTP/1.
    AnswersHttp1 = "answers-http1",
    /// Answers HTTP/2 with a TLS alert.
    AnswersTlsAlert = "answers-tls-alert",
    /// Answers TLS with garbage.
    TlsGarbage = "tls-garbage",
    /// Answers TLS with nothing.
    TlsSilence = "tls-silence",
    /// Answers TLS with HTTP/2 in the clear.
    TlsMissing = "tls-missing",
    /// Answers yamux with garbage.
    MuxGarbage = "mux-garbage",
    /// Answers yamux with nothing.
    MuxSilence = "mux-silence",
    /// Sends frames of the greatest length that the format has.
    HugeFrames = "huge-frames",
    /// Sends settings for ever.
    SettingsFlood = "settings-flood",
    /// Sends pings for ever.
    PingFlood = "ping-flood",
    /// Sends a header block that never ends.
    EndlessHeaders = "endless-headers",
    /// Says goodbye at once and stays.
    GoAwayAtOnce = "go-away-at-once",
    /// Resets every call.
    ResetsCalls = "resets-calls",
    /// Widens the connection's window beyond what a window can be.
    WindowOverflow = "window-overflow",
    /// Announces a message of 4 GiB.
    HugeMessage = "huge-message",
    /// Announces a message of just under 2 GiB and sends it byte by byte.
    HugeMessageTrickled = "huge-message-trickled",
    /// Ends every call without a status.
    StatusMissing = "status-missing",
    /// Takes calls and never answers.
    NeverAnswers = "never-answers",
    /// Closes the connection under a call and stays.
    HangsUp = "hangs-up",
    /// Closes the connection under a call, as a plugin that ends by itself does,
    /// and ends a moment later with status 0.
    HangsUpAndEnds = "hangs-up-and-ends",
    /// Is killed by a signal under a call.
    DiesDuringCall = "dies-during-call",
    /// Exits with status 3 under a call.
    ExitsDuringCall = "exits-during-call",
    /// Sends output over the stdio stream as fast as it is taken, for 1 GiB.
    StdioFlood = "stdio-flood",
    /// Sends output for a channel that does not exist.
    StdioForeign = "stdio-foreign",
    /// Prints 1 GiB to its descriptor 1 while it serves.
    StdoutFloodWhileServing = "stdout-flood-while-serving",
    /// Prints 1 GiB to its descriptor 2 while it serves.
    StderrFloodWhileServing = "stderr-flood-while-serving",
    /// Closes its descriptor 1 while it serves.
    StdoutClosedWhileServing = "stdout-closed-while-serving",
    /// Closes its descriptor 2 while it serves.
    StderrClosedWhileServing = "stderr-closed-while-serving",
    /// Announces 100 000 broker ids.
    BrokerAnnouncementStorm = "broker-announcement-storm",
    /// Knocks at 100 000 broker ids.
    BrokerKnockStorm = "broker-knock-storm",
    /// Knocks 100 000 times at the same broker id.
    BrokerKnockRepeated = "broker-knock-repeated",
    /// Says nonsense on the broker's stream.
    BrokerNonsense = "broker-nonsense",
    /// Never answers when it is asked to end, and stays.
    IgnoresShutdown = "ignores-shutdown",
    /// Agrees to end, and stays.
    AgreesAndStays = "agrees-and-stays",
    /// Takes its time to agree to end, and ends.
    AgreesLate = "agrees-late",
    /// Agrees to end, and ends when its host has hung up.
    AgreesAndWaits = "agrees-and-waits",
    /// Has no controller that could be asked to end it.
    ControllerMissing = "controller-missing",
    /// Has no broker.
    BrokerMissing = "broker-missing",
    /// Ignores every signal that can be ignored, and stays.
    IgnoresSignals = "ignores-signals",
    /// Ends when asked, and leaves a child that holds its pipes.
    ChildHoldsPipes = "child-holds-pipes",
    /// Ends when asked, and leaves a child without pipes.
    ChildKeepsRunning = "child-keeps-running",
    /// Stays when asked to end, and so does its child.
    ChildStaysToo = "child-stays-too",
    /// Ends when asked, and leaves a daemon in a session of its own.
    LeavesDaemon = "leaves-daemon",
}

/// A text that names no [`Fault`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFault(
    /// The text.
    pub String,
);

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a fault", self.0)
    }
}

impl std::error::Error for UnknownFault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let found = Self::ALL.iter().find(|fault| fault.as_str() == text);
        found.copied().ok_or_else(|| UnknownFault(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        for fault in Fault::ALL {
            assert_eq!(fault.as_str().parse(), Ok(*fault));
        }
        let error = "no such".parse::<Fault>().expect_err("unknown");
        assert_eq!(error.to_string(), "\"no such\" is not a fault");
    }
}

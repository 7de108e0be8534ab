//! [`UnderWay`]: a request that is worked on a piece at a time.

use std::fmt;

use crate::error::Result;
use crate::session::Session;

/// Work that a session does in pieces of bounded size.
pub(crate) trait Pieces: Send {
    type Results;

    /// Does the next piece; false when there is none left.
    ///
    /// # Errors
    /// Where memory runs out.
    fn work(&mut self, session: &mut Session) -> Result<bool>;

    /// What has come out, once no piece is left.
    fn results(self: Box<Self>) -> Self::Results;
}

/// A request under way, with its session: for callers that must do other things between pieces of it, such as a worker
/// in a browser, which hears of an abort only then. It gives what the session's own call gives, to the last bit.
///
/// A piece is a few blocks of the encoder, up to 32 tokens of a given target, or one step of all sequences that are
/// decoded side by side; see [`Generation::work`](crate::Generation::work) for one text of which every token is wanted
/// as it comes.
pub struct UnderWay<T> {
    session: Session,
    pieces: Box<dyn Pieces<Results = T>>,
}

impl<T> fmt::Debug for UnderWay<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnderWay").field("session", &self.session).finish_non_exhaustive()
    }
}

impl<T> UnderWay<T> {
    pub(crate) fn new(session: Session, pieces: impl Pieces<Results = T> + 'static) -> UnderWay<T> {
        UnderWay { session, pieces: Box::new(pieces) }
    }

    /// Does the next piece; false when there is none left.
    ///
    /// # Errors
    /// Where memory runs out, and where the call that began it says so.
    pub fn work(&mut self) -> Result<bool> {
        self.pieces.work(&mut self.session)
    }

    /// Does what is left; the results, and the session.
    ///
    /// # Errors
    /// As [`UnderWay::work`]; the session is lost then.
    pub fn finish(mut self) -> Result<(T, Session)> {
        while self.work()? {}
        Ok((self.pieces.results(), self.session))
    }

    /// Ends it where it is and gives the session back.
    pub fn into_session(self) -> Session {
        self.session
    }
}

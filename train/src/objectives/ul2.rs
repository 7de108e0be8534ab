//! UL2's mixture of denoisers.

/// UL2's mode tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `[NLU]`: short spans, little noise.
    Nlu = 0,
    /// `[S2S]`: prefix language model.
    S2s = 1,
    /// `[NLG]`: long spans or much noise.
    Nlg = 2,
}

impl Mode {
    /// The token's text.
    pub const TEXTS: [&str; 3] = ["[NLU]", "[S2S]", "[NLG]"];
}

/// What a denoiser removes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Corruption {
    Spans {
        density: f64,
        mean_span: f64,
    },
    /// The last part of the sequence is the target.
    Tail {
        density: f64,
    },
}

/// One configuration of UL2's mixture (Tay et al., "UL2: Unifying language learning paradigms", 2022, table 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denoiser {
    pub mode: Mode,
    pub corruption: Corruption,
}

impl Denoiser {
    const fn spans(mode: Mode, mean_span: f64, density: f64) -> Denoiser {
        Denoiser { mode, corruption: Corruption::Spans { density, mean_span } }
    }

    /// R (two), S (one), X (four), mixed uniformly.
    pub const ALL: [Denoiser; 7] = [
        Denoiser::spans(Mode::Nlu, 3.0, 0.15),
        Denoiser::spans(Mode::Nlu, 8.0, 0.15),
        Denoiser { mode: Mode::S2s, corruption: Corruption::Tail { density: 0.25 } },
        Denoiser::spans(Mode::Nlg, 3.0, 0.5),
        Denoiser::spans(Mode::Nlg, 8.0, 0.5),
        Denoiser::spans(Mode::Nlg, 64.0, 0.15),
        Denoiser::spans(Mode::Nlg, 64.0, 0.5),
    ];
}

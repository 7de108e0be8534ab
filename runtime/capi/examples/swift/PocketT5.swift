// T5 models in Swift: a short binding over pocket_t5.h, which is the module CPocketT5 where it is installed.

import CPocketT5

struct PocketT5Error: Error, CustomStringConvertible {
    let description: String

    static func check(_ status: pt5_status) throws {
        if status != PT5_OK { throw PocketT5Error(description: String(cString: pt5_last_error())) }
    }
}

/// Works for one call at a time.
final class PocketT5 {
    private var model: OpaquePointer?
    private var session: OpaquePointer?

    /// Opens a file, a folder or hf:OWNER/NAME; without a path the built-in model.
    init(path: String? = nil, threads: UInt32 = 0) throws {
        try PocketT5Error.check(path.map { pt5_model_open($0, nil, &model) } ?? pt5_model_builtin(nil, &model))
        try PocketT5Error.check(pt5_session_new(model, threads, &session))
    }

    deinit {
        pt5_session_free(session)
        pt5_model_free(model)
    }

    /// The text that answers a text. Each piece goes to `hear` as it comes, until that says false.
    func generate(
        _ text: String, beams: UInt32 = 0, hear: @escaping (String) -> Bool = { _ in true }
    ) throws -> String {
        var options = pt5_options()
        options.size = MemoryLayout<pt5_options>.size
        options.beams = beams
        var results: OpaquePointer?
        defer { pt5_results_free(results) }
        let listener = Listener(hear)
        let user = Unmanaged.passUnretained(listener).toOpaque()
        let piece: pt5_piece = { user, _, piece, len in
            Unmanaged<Listener>.fromOpaque(user!).takeUnretainedValue().hear(string(piece, len)) ? 0 : 1
        }
        try withExtendedLifetime(listener) {
            try PocketT5Error.check(pt5_generate(session, text, text.utf8.count, &options, piece, user, &results))
        }
        let best = pt5_results_get(results, 0, 0).pointee
        return string(best.text, best.text_len)
    }
}

/// By its length: a text may hold zeros.
private func string(_ text: UnsafePointer<CChar>?, _ length: Int) -> String {
    String(decoding: UnsafeRawBufferPointer(start: text, count: length), as: UTF8.self)
}

private final class Listener {
    let hear: (String) -> Bool
    init(_ hear: @escaping (String) -> Bool) { self.hear = hear }
}

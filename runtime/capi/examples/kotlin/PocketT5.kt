// T5 models on the JVM: a short binding over pocket_t5.h by JNA (net.java.dev.jna), which also runs on Android.

import com.sun.jna.Callback
import com.sun.jna.Library
import com.sun.jna.Native
import com.sun.jna.NativeLong
import com.sun.jna.Pointer
import com.sun.jna.Structure
import com.sun.jna.ptr.PointerByReference

/** size_t, on machines whose long has its size (all but Windows). */
private fun sizeT(bytes: Int) = NativeLong(bytes.toLong())

/** By its length: a text may hold zeros. */
private fun string(text: Pointer, length: NativeLong) =
    String(text.getByteArray(0, length.toInt()), Charsets.UTF_8)

private interface PieceCallback : Callback {
    fun invoke(user: Pointer?, index: NativeLong, piece: Pointer, len: NativeLong): Int
}

@Structure.FieldOrder(
    "size", "task", "seed", "max_new_tokens", "beams", "n_best", "temperature", "choices", "choices_count", "stop",
    "stop_count", "json", "cancel"
)
internal class Options(
    @JvmField var beams: Int = 0,
    @JvmField var max_new_tokens: Int = 0,
    @JvmField var json: String? = null
) : Structure() {
    @JvmField var size: NativeLong = NativeLong(0)
    @JvmField var task: String? = null
    @JvmField var seed: Long = 0
    @JvmField var n_best: Int = 0
    @JvmField var temperature: Float = 0f
    @JvmField var choices: Pointer? = null
    @JvmField var choices_count: NativeLong = NativeLong(0)
    @JvmField var stop: Pointer? = null
    @JvmField var stop_count: NativeLong = NativeLong(0)
    @JvmField var cancel: Pointer? = null

    init {
        setStringEncoding("UTF-8")
        size = sizeT(size())
    }
}

private interface Functions : Library {
    fun pt5_last_error(): Pointer
    fun pt5_model_open(path: String, options: Pointer?, model: PointerByReference): Int
    fun pt5_model_builtin(options: Pointer?, model: PointerByReference): Int
    fun pt5_model_free(model: Pointer?)
    fun pt5_session_new(model: Pointer?, threads: Int, session: PointerByReference): Int
    fun pt5_session_free(session: Pointer?)
    fun pt5_generate(
        session: Pointer?, text: ByteArray, len: NativeLong, options: Options, piece: PieceCallback, user: Pointer?,
        results: PointerByReference
    ): Int
    fun pt5_results_get(results: Pointer, text: NativeLong, rank: NativeLong): Pointer
    fun pt5_results_free(results: Pointer)
}

class PocketT5Exception(message: String) : Exception(message)

/** Works for one call at a time. Without a path the built-in model; else a file, a folder or hf:OWNER/NAME. */
class PocketT5(path: String? = null, threads: Int = 0) : AutoCloseable {
    private val functions =
        Native.load("pocket_t5", Functions::class.java, mapOf(Library.OPTION_STRING_ENCODING to "UTF-8"))
    /** Null once it is closed; calls refuse that. It keeps what it needs of its model. */
    private var session: Pointer? = null

    init {
        val model = get {
            if (path == null) functions.pt5_model_builtin(null, it) else functions.pt5_model_open(path, null, it)
        }
        try {
            session = get { functions.pt5_session_new(model, threads, it) }
        } finally {
            functions.pt5_model_free(model)
        }
    }

    private fun get(call: (PointerByReference) -> Int): Pointer {
        val reference = PointerByReference()
        if (call(reference) != 0) throw PocketT5Exception(functions.pt5_last_error().getString(0, "UTF-8"))
        return reference.value
    }

    /** The text that answers a text. Each piece goes to [hear] as it comes, until that says false. */
    fun generate(text: String, beams: Int = 0, hear: (String) -> Boolean = { true }): String {
        val callback = object : PieceCallback {
            override fun invoke(user: Pointer?, index: NativeLong, piece: Pointer, len: NativeLong): Int =
                if (hear(string(piece, len))) 0 else 1
        }
        val bytes = text.toByteArray()
        val results = get {
            functions.pt5_generate(session, bytes, sizeT(bytes.size), Options(beams), callback, null, it)
        }
        try {
            // `text` and `text_len` are the first fields of an output.
            val best = functions.pt5_results_get(results, sizeT(0), sizeT(0))
            return string(best.getPointer(0), best.getNativeLong(Native.POINTER_SIZE.toLong()))
        } finally {
            functions.pt5_results_free(results)
        }
    }

    override fun close() {
        functions.pt5_session_free(session)
        session = null
    }
}

fun main() {
    PocketT5(threads = 1).use { model ->
        val request = "translate English to German: Where is the station?"
        val pieces = mutableListOf<String>()
        println(model.generate(request) { pieces.add(it) })
        check(pieces.size > 2 && pieces.joinToString("") == model.generate(request, beams = 4))
        try {
            model.generate(request, beams = 5000)
        } catch (error: PocketT5Exception) {
            println(error.message)
        }
    }
}

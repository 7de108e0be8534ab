// Pocket T5: T5 models on a CPU, for C and everything that calls C. Text goes in, text comes out.
//
//     pt5_model *model;
//     pt5_session *session;
//     pt5_results *results;
//     const char *text = "translate English to German: Where is the station?";
//     if (pt5_model_builtin(NULL, &model) != PT5_OK || pt5_session_new(model, 0, &session) != PT5_OK ||
//         pt5_generate(session, text, PT5_NUL, NULL, NULL, NULL, &results) != PT5_OK) {
//         return fprintf(stderr, "%s\n", pt5_last_error()), 1;
//     }
//     puts(pt5_results_get(results, 0, 0)->text);
//
// Errors. A function that can fail gives a pt5_status; where it is not PT5_OK, pt5_last_error() is one sentence that
// says what is wrong, where, and what was expected. What a failed call was to give is then NULL. NULL where something
// is needed, text that is not UTF-8, and sizes that cannot be are PT5_ARGUMENT, never a crash. No panic of the library
// crosses the border: it is PT5_INTERNAL.
//
// Threads. A pt5_model is never changed: any number of threads may use one. A pt5_session works for one call at a time;
// another call meanwhile, from a callback too, is PT5_BUSY. A pt5_cancel may be set from any thread. Results belong to
// whoever has them. Sessions keep their model alive, and results need neither: free them in any order, each once, and
// none while a call uses it. pt5_last_error() is of the calling thread.
//
// Text is UTF-8, with its length in bytes, or PT5_NUL where a zero ends it. Texts that come back have a length, and a
// zero behind them.
//
// Callbacks run on the thread that made the call. They must return: no longjmp, no C++ exception.
//
// Structs whose first field is `size` grow at their end. Set it to sizeof, and all else to zero, which is always the
// usual:
//
//     pt5_options options = {sizeof options};
//     options.beams = 4;
//
// Made by cbindgen from runtime/capi/src: not to be edited.


#ifndef POCKET_T5_H
#define POCKET_T5_H

#include <stddef.h>
#include <stdint.h>

// The ABI of this header; pt5_abi() is that of the library. It changes where something here is taken away.
#define PT5_ABI 1

// As the length of a text: a zero ends it.
#define PT5_NUL ((size_t)-1)

// How a call ended.
typedef enum {
    // It did what it was to do.
    PT5_OK = 0,
    // An argument cannot be: NULL, text that is not UTF-8, a size that nothing has.
    PT5_ARGUMENT = 1,
    // An option is unknown, out of range, or contradicts another one.
    PT5_OPTION = 2,
    // What was to be opened is no model, or not one that can be run.
    PT5_MODEL = 3,
    // A file could not be read or written.
    PT5_IO = 4,
    // A file was written in place while it was mapped: open the model again.
    PT5_CHANGED = 5,
    // There is not enough memory.
    PT5_MEMORY = 6,
    // The model hub could not be reached, or does not have it.
    PT5_HUB = 7,
    // The session works on another call.
    PT5_BUSY = 8,
    // The call was cancelled: only pt5_embed gives it, a generation ends with PT5_FINISH_CANCELLED.
    PT5_CANCELLED = 9,
    // A mistake in the library. Please report it.
    PT5_INTERNAL = 10,
} pt5_status;

// Why a text ends where it ends.
typedef enum {
    // The model ended it.
    PT5_FINISH_EOS = 0,
    // The limit of new tokens was reached.
    PT5_FINISH_LENGTH = 1,
    // A stop string was found.
    PT5_FINISH_STOP = 2,
    // No token could come next.
    PT5_FINISH_BLOCKED = 3,
    // It was cancelled, by a pt5_cancel or by a callback.
    PT5_FINISH_CANCELLED = 4,
    // There was no memory for more.
    PT5_FINISH_MEMORY = 5,
} pt5_finish;

// Ends requests that it was given to, from any thread: before the next block of the encoder, or the next token. It
// stays set; a request that is given one that is set ends at once.
typedef struct pt5_cancel pt5_cancel;

// What the encoder made of some texts.
typedef struct pt5_embeddings pt5_embeddings;

// A model, ready to run. Never changed, so threads may share it.
typedef struct pt5_model pt5_model;

// What came out of a request: for each text one or more outputs, best first.
typedef struct pt5_results pt5_results;

// The memory in which a model works. One call at a time; each thread of a program may have its own.
typedef struct pt5_session pt5_session;

// Told how far a download is: `done` of the `size` bytes of a file.
typedef void (*pt5_progress)(void *user, const char *file, uint64_t done, uint64_t size);

// How a model is opened. Zeros: as usual.
typedef struct {
    // sizeof(pt5_model_options)
    size_t size;
    // The instruction set to use, such as "avx2" or "scalar"; NULL: the best that the machine has. Results are the
    // same.
    const char *isa;
    // A file of packed weights, which is mapped, and made where it is not there or of another model or machine: so
    // large models start at once, and processes share them. NULL: none.
    const char *packed;
    // Another tokenizer than the model's: a file, a folder, or hf:OWNER/NAME. NULL: the model's.
    const char *tokenizer;
    // Not 0: read weights into memory in place of mapping their files, which then may be written.
    uint32_t copy;
    // Told how far a download is; NULL: nobody.
    pt5_progress progress;
    // What `progress` gets first.
    void *user;
} pt5_model_options;

// A token that could have stood in a place.
typedef struct {
    // Its id.
    uint32_t id;
    // The log-probability that the model gives it.
    float logprob;
} pt5_token;

// One generated text; it lives as long as the results.
typedef struct {
    // UTF-8 with a zero behind it.
    const char *text;
    // Bytes of it.
    size_t text_len;
    // The new tokens, the one that ends the text included.
    const uint32_t *ids;
    // The log-probability of each. NULL where {"logprobs": false} was asked for.
    const float *logprobs;
    // How many tokens.
    size_t count;
    // The sum of the log-probabilities; of a beam, divided by the length penalty, which is ((5 + count) / 6)^0.6
    // unless options say otherwise; where no beam has ended, as with that penalty at the limit of new tokens, the sum
    // itself. NaN where {"logprobs": false} leaves out what it is of.
    float score;
    // Why it ends.
    pt5_finish finish;
    // For each token the `alternatives_each` likeliest in its place, the likeliest first. NULL unless
    // {"top_logprobs": N} was asked for.
    const pt5_token *alternatives;
    // How many there are for each token.
    size_t alternatives_each;
} pt5_output;

// What may be asked of a generation. Zeros: as the model's checkpoint wants it; greedy search where it says nothing.
typedef struct {
    // sizeof(pt5_options)
    size_t size;
    // One of the checkpoint's tasks, whose prefix and settings are then used. NULL: none.
    const char *task;
    // The same seed gives the same draws.
    uint64_t seed;
    // Limit of new tokens. 0: the checkpoint's, or 256.
    uint32_t max_new_tokens;
    // Beam search with so many beams; 1: greedy search. 0: the checkpoint's.
    uint32_t beams;
    // How many results of each text: the best beams, or draws. 0: the checkpoint's, or 1.
    uint32_t n_best;
    // Above 0: draw tokens. 0: as the checkpoint wants it (where it draws and you want none, say so in `json`).
    float temperature;
    // If there are any, results are each one of these texts.
    const char *const *choices;
    // How many.
    size_t choices_count;
    // Generation ends where one of these appears, and the text before it.
    const char *const *stop;
    // How many.
    size_t stop_count;
    // All other options, as a JSON object with the names of the Rust library's `Overrides`:
    // {"no_repeat_ngram": 3, "length_penalty": 1.0, "prefix": "Es war"}. NULL: none.
    const char *json;
    // Ends the request from another thread. NULL: nothing does.
    const pt5_cancel *cancel;
} pt5_options;

// Gets a piece of a text as soon as it is there: its `len` bytes, with a zero behind them, never end inside a
// character. `index` is the text's place in its batch. Beams and several draws come as a whole, or sentence by
// sentence. Anything but 0 ends this text, which then has PT5_FINISH_CANCELLED.
typedef int (*pt5_piece)(void *user, size_t index, const char *piece, size_t len);

// One of several texts, and how likely it is.
typedef struct {
    // Its place among the choices, from 0.
    size_t index;
    // Its log-probability.
    float logprob;
    // Its share: all of them together have 1.
    float probability;
} pt5_choice;

// What is wanted of the encoder. Zeros: one vector a text, as the model was trained for it, or the mean.
typedef struct {
    // sizeof(pt5_embed_options)
    size_t size;
    // "none" (a vector for each token), "mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens" or "weightedmean".
    // NULL: what the model was trained with, or the mean.
    const char *pooling;
    // A text before each text. NULL: none, or the model's prompt.
    const char *prefix;
    // The name of a prompt of a sentence model. NULL: its usual one.
    const char *prompt;
    // Take each text for so many tokens: shorter ones get padding, longer ones are cut. 0: as long as it is.
    uint32_t pad_to;
    // Not 0: padding is attended to, as image models want it.
    uint32_t attend_to_padding;
    // Not 0: divide each vector by its length.
    uint32_t normalize;
    // So many blocks before the encoder's end; 0: its output.
    uint32_t blocks_from_end;
    // Ends the request from another thread. NULL: nothing does.
    const pt5_cancel *cancel;
} pt5_embed_options;

// What the encoder makes of a text; it lives as long as the embeddings.
typedef struct {
    // `rows` vectors of `width` values, one after the other.
    const float *values;
    // Vectors: 1, or with pooling "none" one for each token.
    size_t rows;
    // Values of a vector.
    size_t width;
    // The tokens that were read, padding included.
    const uint32_t *ids;
    // How many.
    size_t ids_count;
    // How many of them are the text's.
    size_t tokens;
} pt5_states;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What was wrong with the last call of this thread that failed: one sentence, empty if none has. It stays until the
// next call of this thread fails: ask for it in a statement of its own, behind the call's.
const char *pt5_last_error(void);

// The version of the library, such as "0.1.0".
const char *pt5_version(void);

// The ABI of the library: a program compiled with another PT5_ABI must not call it.
uint32_t pt5_abi(void);

// Frees what a call gave as a `char *` or a `uint32_t *`. Nothing for NULL.
void pt5_free(void *memory);

// Opens a GGUF file, a Hugging Face folder, a safetensors file, or hf:OWNER/NAME, which is downloaded into the Hugging
// Face cache; the variables HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE and HF_ENDPOINT are obeyed. Files are
// mapped: replace them by renaming, never by writing in place. A zero ends the path, which is UTF-8 on Windows and any
// bytes elsewhere.
pt5_status pt5_model_open(const char *path,
                          const pt5_model_options *options,
                          pt5_model **model);

// Opens a GGUF file that is in memory. It is copied.
pt5_status pt5_model_open_memory(const uint8_t *bytes,
                                 size_t len,
                                 const pt5_model_options *options,
                                 pt5_model **model);

// Opens the model that is part of the library: translation between English and German or French, pronunciation,
// corrections, and gaps. runtime/model/README.md is its card.
pt5_status pt5_model_builtin(const pt5_model_options *options,
                             pt5_model **model);

// What the model says of itself, as JSON: `file`, `isa`, `config`, `generation` with its tasks, `tokenizer`, `about`,
// and `notes` on what was ignored. Free it with pt5_free.
pt5_status pt5_model_info(const pt5_model *model,
                          char **json);

// Frees a model. Its sessions keep what they need.
void pt5_model_free(pt5_model *model);

// A session over a model, in which each pass is shared by `threads` threads, the caller's included, at most 64. 0: as
// many as a NUMA node has cores for this process, at most 16; 1 is best where many sessions run side by side. Results
// do not depend on it.
pt5_status pt5_session_new(const pt5_model *model,
                           uint32_t threads,
                           pt5_session **session);

// Frees a session.
void pt5_session_free(pt5_session *session);

// A flag that is not set.
pt5_status pt5_cancel_new(pt5_cancel **cancel);

// Ends the requests that it was given to. Nothing for NULL.
void pt5_cancel_set(const pt5_cancel *cancel);

// Requests that it was given to go on, and can no longer be cancelled.
void pt5_cancel_free(pt5_cancel *cancel);

// How many texts there are results of; 0 for NULL.
size_t pt5_results_texts(const pt5_results *results);

// How many outputs a text has, counted from 0; 0 where there is no such text.
size_t pt5_results_outputs(const pt5_results *results, size_t text);

// An output of a text, both counted from 0; the best is the first. NULL where there is none. It lives as long as the
// results.
const pt5_output *pt5_results_get(const pt5_results *results,
                                  size_t text,
                                  size_t rank);

// Frees results and what they point to.
void pt5_results_free(pt5_results *results);

// Generates for a text. `piece` gets it as it comes; it and `results` may be NULL. Where memory runs out in the midst
// of it, the output ends there, with PT5_FINISH_MEMORY.
pt5_status pt5_generate(const pt5_session *session,
                        const char *text,
                        size_t len,
                        const pt5_options *options,
                        pt5_piece piece,
                        void *user,
                        pt5_results **results);

// As pt5_generate, from ids (which should end with the model's end token), before which no prefix is put.
pt5_status pt5_generate_ids(const pt5_session *session,
                            const uint32_t *ids,
                            size_t count,
                            const pt5_options *options,
                            pt5_piece piece,
                            void *user,
                            pt5_results **results);

// Generates for `count` texts side by side, which takes far less time than one after the other, and gives each the
// same output. `lens` may be NULL where a zero ends each text. One that is wrong, or for which there is no memory,
// fails the call.
pt5_status pt5_generate_batch(const pt5_session *session,
                              const char *const *texts,
                              const size_t *lens,
                              size_t count,
                              const pt5_options *options,
                              pt5_piece piece,
                              void *user,
                              pt5_results **results);

// How likely the model holds a target to be as the answer to a source: one output with the target's ids, the
// log-probability of each, and as score their sum.
pt5_status pt5_score(const pt5_session *session,
                     const char *source,
                     size_t source_len,
                     const char *target,
                     size_t target_len,
                     pt5_results **results);

// How likely each of `count` choices is as the answer to a text: fills `ranked`, which has as many places, the
// likeliest first. `lens` may be NULL where a zero ends each choice.
pt5_status pt5_choose(const pt5_session *session,
                      const char *text,
                      size_t len,
                      const char *const *choices,
                      const size_t *lens,
                      size_t count,
                      pt5_choice *ranked);

// Embeds `count` texts. `lens` may be NULL where a zero ends each of them.
pt5_status pt5_embed(const pt5_session *session,
                     const char *const *texts,
                     const size_t *lens,
                     size_t count,
                     const pt5_embed_options *options,
                     pt5_embeddings **embeddings);

// How many texts there are embeddings of; 0 for NULL.
size_t pt5_embeddings_count(const pt5_embeddings *embeddings);

// What became of a text, counted from 0; NULL where there is none. It lives as long as the embeddings.
const pt5_states *pt5_embeddings_get(const pt5_embeddings *embeddings,
                                     size_t text);

// Frees embeddings and what they point to.
void pt5_embeddings_free(pt5_embeddings *embeddings);

// The ids of a text, the end token behind them: `count` of them, to be freed with pt5_free.
pt5_status pt5_tokenize(const pt5_model *model,
                        const char *text,
                        size_t len,
                        uint32_t **ids,
                        size_t *count);

// The text of ids: `len` bytes with a zero behind them, to be freed with pt5_free; `len` may be NULL. `skip_special`
// not 0: without special tokens and <extra_id_n>.
pt5_status pt5_detokenize(const pt5_model *model,
                          const uint32_t *ids,
                          size_t count,
                          int skip_special,
                          char **text,
                          size_t *len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* POCKET_T5_H */

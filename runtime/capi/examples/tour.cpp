// All that a model does, in C++: handles that free themselves, errors as exceptions. Prints a line for each thing.

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "pocket_t5.h"

namespace {

template <auto release>
struct Free {
    template <typename T>
    void operator()(T *pointer) const { release(pointer); }
};
using Model = std::unique_ptr<pt5_model, Free<pt5_model_free>>;
using Session = std::unique_ptr<pt5_session, Free<pt5_session_free>>;
using Results = std::unique_ptr<pt5_results, Free<pt5_results_free>>;
using Embeddings = std::unique_ptr<pt5_embeddings, Free<pt5_embeddings_free>>;
using Cancel = std::unique_ptr<pt5_cancel, Free<pt5_cancel_free>>;

void check(pt5_status status)
{
    if (status != PT5_OK) throw std::runtime_error(pt5_last_error());
}

// What a call gives by its last argument.
template <typename Handle, typename Call, typename... Arguments>
Handle get(Call call, Arguments... arguments)
{
    typename Handle::pointer pointer = nullptr;
    check(call(arguments..., &pointer));
    return Handle(pointer);
}

void run()
{
    Model model = get<Model>(pt5_model_builtin, nullptr);
    Session session = get<Session>(pt5_session_new, model.get(), 1u);

    // Several texts side by side, with beams and with an option that has no field.
    std::vector<const char *> texts = {
        "translate English to German: Where is the station?",
        "translate English to French: Good morning!",
        "pronounce: station",
    };
    pt5_options options = {sizeof options};
    options.beams = 4;
    options.json = "{\"length_penalty\": 0.6}";
    Results batch = get<Results>(pt5_generate_batch, session.get(), texts.data(), nullptr, texts.size(), &options,
                                 nullptr, nullptr);
    for (size_t text = 0; text < pt5_results_texts(batch.get()); text++) {
        const pt5_output *best = pt5_results_get(batch.get(), text, 0);
        std::printf("batch\t%s\t%.6f\n", best->text, best->score);
    }

    // How likely a given answer is, and which of some is the likeliest.
    Results score = get<Results>(pt5_score, session.get(), texts[0], PT5_NUL, "Wo ist der Bahnhof?", PT5_NUL);
    const pt5_output *scored = pt5_results_get(score.get(), 0, 0);
    std::printf("score\t%zu tokens\t%.6f\n", scored->count, scored->score);
    const char *choices[] = {"Guten Abend.", "Guten Morgen."};
    pt5_choice ranked[2];
    const char *morning = "translate English to German: Good morning.";
    check(pt5_choose(session.get(), morning, PT5_NUL, choices, nullptr, 2, ranked));
    std::printf("choose\t%s\t%.6f\n", choices[ranked[0].index], ranked[0].probability);
    options = {sizeof options};
    options.choices = choices;
    options.choices_count = 2;
    Results chosen = get<Results>(pt5_generate, session.get(), "translate English to German: Good evening.", PT5_NUL,
                                  &options, nullptr, nullptr);
    std::printf("choices\t%s\n", pt5_results_get(chosen.get(), 0, 0)->text);

    // Vectors.
    pt5_embed_options embedding = {sizeof embedding};
    embedding.normalize = 1;
    Embeddings embeddings = get<Embeddings>(pt5_embed, session.get(), texts.data(), nullptr, 2, &embedding);
    const pt5_states *a = pt5_embeddings_get(embeddings.get(), 0), *b = pt5_embeddings_get(embeddings.get(), 1);
    float cosine = 0;
    for (size_t i = 0; i < a->width; i++) cosine += a->values[i] * b->values[i];
    std::printf("embed\t%zu values\t%.4f\n", a->width, cosine);

    // Ids and back.
    uint32_t *ids = nullptr;
    size_t count = 0;
    check(pt5_tokenize(model.get(), "Good morning!", PT5_NUL, &ids, &count));
    std::unique_ptr<uint32_t, Free<pt5_free>> owned_ids(ids);
    char *text = nullptr;
    check(pt5_detokenize(model.get(), ids, count, 1, &text, nullptr));
    std::unique_ptr<char, Free<pt5_free>> owned_text(text);
    std::printf("tokens\t%zu\t%s\n", count, text);

    // A second thread over the same model, ended from here before it begins.
    Cancel cancel = get<Cancel>(pt5_cancel_new);
    pt5_cancel_set(cancel.get());
    std::thread([&] {
        Session own = get<Session>(pt5_session_new, model.get(), 1u);
        pt5_options options = {sizeof options};
        options.cancel = cancel.get();
        Results results = get<Results>(pt5_generate, own.get(), texts[0], PT5_NUL, &options, nullptr, nullptr);
        bool cancelled = pt5_results_get(results.get(), 0, 0)->finish == PT5_FINISH_CANCELLED;
        std::printf("cancel\t%s\n", cancelled ? "cancelled" : "not cancelled");
    }).join();

    // What is wrong is said in one sentence.
    options = {sizeof options};
    options.beams = 5000;
    try {
        get<Results>(pt5_generate, session.get(), texts[0], PT5_NUL, &options, nullptr, nullptr);
    } catch (const std::runtime_error &error) {
        std::printf("error\t%s\n", error.what());
    }
}

}  // namespace

int main()
{
    try {
        run();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}

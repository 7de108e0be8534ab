/* Prints what a model makes of a text, piece by piece: generate [--model MODEL] TEXT */

#include <stdio.h>
#include <string.h>

#include "pocket_t5.h"

static int print(void *user, size_t index, const char *piece, size_t len)
{
    (void)index;
    fwrite(piece, 1, len, user);
    fflush(user);
    return ferror((FILE *)user); /* Nobody reads any more: no need to go on. */
}

int main(int argc, char **argv)
{
    int named = argc == 4 && strcmp(argv[1], "--model") == 0;
    if (argc != 2 && !named) {
        fprintf(stderr, "usage: %s [--model MODEL] TEXT\n", argv[0]);
        return 2;
    }
    if (pt5_abi() != PT5_ABI) {
        fprintf(stderr, "expected a library of ABI %d, found %u\n", PT5_ABI, (unsigned)pt5_abi());
        return 1;
    }

    pt5_model *model = NULL;
    pt5_session *session = NULL;
    pt5_status status = named ? pt5_model_open(argv[2], NULL, &model) : pt5_model_builtin(NULL, &model);
    if (status == PT5_OK)
        status = pt5_session_new(model, 0, &session);
    if (status == PT5_OK) {
        pt5_options options = {sizeof options};
        options.max_new_tokens = 100;
        status = pt5_generate(session, argv[argc - 1], PT5_NUL, &options, print, stdout, NULL);
        putchar('\n');
    }
    if (status != PT5_OK)
        fprintf(stderr, "%s\n", pt5_last_error());
    pt5_session_free(session);
    pt5_model_free(model);
    return status != PT5_OK;
}

// Package pocket runs T5 models: a short binding over pocket_t5.h.
package pocket

/*
#cgo pkg-config: pocket_t5
#include <stdlib.h>
#include "pocket_t5.h"

int pocketPiece(void *user, size_t index, char *piece, size_t len);

static pt5_status pocket_generate(const pt5_session *session, const char *text, size_t len, uint32_t beams,
                                  const pt5_cancel *cancel, uintptr_t user, pt5_results **results) {
	pt5_options options = {sizeof options};
	options.beams = beams;
	options.cancel = cancel;
	return pt5_generate(session, text, len, &options, user ? (pt5_piece)pocketPiece : NULL, (void *)user, results);
}
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// Model is shared by any number of goroutines.
type Model struct{ handle *C.pt5_model }

// Session works for one call at a time.
type Session struct{ handle *C.pt5_session }

// call runs a call and reads its error, which is of the thread that made it.
func call(work func() C.pt5_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if work() != C.PT5_OK {
		return errors.New(C.GoString(C.pt5_last_error()))
	}
	return nil
}

// Open opens a file, a folder or hf:OWNER/NAME; without a path the built-in model.
func Open(path string) (*Model, error) {
	var model *C.pt5_model
	err := call(func() C.pt5_status {
		if path == "" {
			return C.pt5_model_builtin(nil, &model)
		}
		name := C.CString(path)
		defer C.free(unsafe.Pointer(name))
		return C.pt5_model_open(name, nil, &model)
	})
	if err != nil {
		return nil, err
	}
	return &Model{model}, nil
}

// Close frees the model; its sessions keep what they need. Calls on it are refused from then on.
func (m *Model) Close() {
	C.pt5_model_free(m.handle)
	m.handle = nil
}

// Session gives a session of one thread.
func (m *Model) Session() (*Session, error) {
	var session *C.pt5_session
	err := call(func() C.pt5_status { return C.pt5_session_new(m.handle, 1, &session) })
	if err != nil {
		return nil, err
	}
	return &Session{session}, nil
}

// Close frees the session. Calls on it are refused from then on.
func (s *Session) Close() {
	C.pt5_session_free(s.handle)
	s.handle = nil
}

//export pocketPiece
func pocketPiece(user unsafe.Pointer, _ C.size_t, piece *C.char, length C.size_t) C.int {
	hear := cgo.Handle(uintptr(user)).Value().(func(string) bool)
	if hear(C.GoStringN(piece, C.int(length))) {
		return 0
	}
	return 1
}

// Generate gives the text that answers a text, found with so many beams; 0: as the model's checkpoint wants it. Each
// piece goes to hear as it comes, if there is one, until it says false. The context's end ends the generation: what there
// is of the text comes beside its error.
func (s *Session) Generate(ctx context.Context, text string, beams int, hear func(string) bool) (string, error) {
	if beams < 0 || uint64(beams) > math.MaxUint32 {
		return "", fmt.Errorf("beams: expected 0 to 1024, found %d", beams)
	}
	var cancel *C.pt5_cancel
	if err := call(func() C.pt5_status { return C.pt5_cancel_new(&cancel) }); err != nil {
		return "", err
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
			C.pt5_cancel_set(cancel)
		case <-done:
		}
	}()
	defer func() {
		close(done)
		<-ended
		C.pt5_cancel_free(cancel)
	}()
	var user cgo.Handle
	if hear != nil {
		user = cgo.NewHandle(hear)
		defer user.Delete()
	}
	source := C.CString(text)
	defer C.free(unsafe.Pointer(source))
	var results *C.pt5_results
	err := call(func() C.pt5_status {
		length := C.size_t(len(text))
		return C.pocket_generate(s.handle, source, length, C.uint32_t(beams), cancel, C.uintptr_t(user), &results)
	})
	if err != nil {
		return "", err
	}
	defer C.pt5_results_free(results)
	best := C.pt5_results_get(results, 0, 0)
	return C.GoStringN(best.text, C.int(best.text_len)), ctx.Err()
}

package pocket

import (
	"context"
	"math"
	"strings"
	"testing"
)

const request = "translate English to German: Where is the station?"

func open(t *testing.T) *Session {
	model, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	session, err := model.Session()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

func TestGenerate(t *testing.T) {
	session := open(t)
	var pieces []string
	hear := func(piece string) bool { pieces = append(pieces, piece); return true }
	text, err := session.Generate(context.Background(), request, 1, hear)
	if err != nil || text != "Wo ist der Bahnhof?" || strings.Join(pieces, "") != text || len(pieces) < 3 {
		t.Fatal(text, pieces, err)
	}
	if text, err = session.Generate(context.Background(), request, 4, nil); err != nil || text != "Wo ist der Bahnhof?" {
		t.Fatal(text, err)
	}
}

func TestEnds(t *testing.T) {
	session := open(t)
	text, err := session.Generate(context.Background(), request, 1, func(string) bool { return false })
	if err != nil || !strings.HasPrefix("Wo ist der Bahnhof?", text) || len(text) > 12 {
		t.Fatal(text, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err = session.Generate(ctx, request, 1, func(string) bool { cancel(); return true })
	if err != context.Canceled {
		t.Fatal(err)
	}
}

func TestErrors(t *testing.T) {
	if _, err := Open("/nowhere"); err == nil || !strings.HasPrefix(err.Error(), "/nowhere: ") {
		t.Fatal(err)
	}
	_, err := open(t).Generate(context.Background(), request, 5000, nil)
	if err == nil || err.Error() != "beams: expected 1 to 1024, found 5000" {
		t.Fatal(err)
	}
	session := open(t)
	if _, err = session.Generate(context.Background(), request, math.MaxInt, nil); err == nil {
		t.Fatal("as many beams as 32 bits cannot say")
	}
	session.Close()
	_, err = session.Generate(context.Background(), request, 1, nil)
	if err == nil || err.Error() != "session: expected a pointer, found NULL" {
		t.Fatal(err)
	}
}

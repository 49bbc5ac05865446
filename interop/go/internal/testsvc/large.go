package testsvc

import (
	"context"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // Calls and replies may be compressed.
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// answerAsAsked does to a call what its metadata asks for. The numbers are lengths: of an error's
// text and details, of metadata in the reply's head and trailers. The head always tells how much
// came as "much".
func answerAsAsked(ctx context.Context) error {
	asked, _ := metadata.FromIncomingContext(ctx)
	number := func(name string) int {
		length, err := strconv.Atoi(strings.Join(asked.Get(name), ""))
		if err != nil {
			return 0
		}
		return length
	}
	filler := func(name string) string { return strings.Repeat("m", number(name)) }
	head := metadata.Pairs("heard", strconv.Itoa(len(strings.Join(asked.Get("much"), ""))))
	if number("reply-head") > 0 {
		head.Set("large", filler("reply-head"))
	}
	if err := grpc.SetHeader(ctx, head); err != nil {
		return err
	}
	if number("reply-trailer") > 0 {
		if err := grpc.SetTrailer(ctx, metadata.Pairs("large", filler("reply-trailer"))); err != nil {
			return err
		}
	}
	if number("reply-gzip") > 0 {
		if err := grpc.SetSendCompressor(ctx, "gzip"); err != nil {
			return err
		}
	}
	if number("fail-text")+number("fail-details") == 0 {
		return nil
	}
	failed := status.New(codes.FailedPrecondition, strings.Repeat("x", number("fail-text")))
	if number("fail-details") > 0 {
		detailed, err := failed.WithDetails(wrapperspb.String(filler("fail-details")))
		if err != nil {
			return err
		}
		failed = detailed
	}
	return failed.Err()
}

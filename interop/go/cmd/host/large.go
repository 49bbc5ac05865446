package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // Calls and replies may be compressed.
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"outrigger.dev/interop/gen/grpctestpb"
)

// beside makes plain calls until work is done; each has to succeed.
func (s *session) beside(work func() (string, error)) (string, error) {
	done := make(chan struct{})
	var others sync.WaitGroup
	failed := make(chan error, 4)
	for range cap(failed) {
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := s.doubled(metadata.MD{}); err != nil {
					failed <- fmt.Errorf("a call beside: %w", err)
					return
				}
			}
		})
	}
	detail, err := work()
	close(done)
	others.Wait()
	select {
	case beside := <-failed:
		return detail, beside
	default:
		return detail, err
	}
}

// doubled calls Double with metadata and returns the head and the trailers of the reply.
func (s *session) doubled(asked metadata.MD, options ...grpc.CallOption) (metadata.MD, error) {
	ctx, cancel := s.context()
	defer cancel()
	var head, trailer metadata.MD
	options = append(options, grpc.Header(&head), grpc.Trailer(&trailer))
	ctx = metadata.NewOutgoingContext(ctx, asked)
	reply, err := s.test().Double(ctx, &grpctestpb.TestRequest{Input: 21}, options...)
	if err == nil && reply.GetOutput() != 42 {
		err = fmt.Errorf("twice 21 is %d", reply.GetOutput())
	}
	return metadata.Join(head, trailer), err
}

// large has the plugin answer with long texts and metadata while other calls run.
func (s *session) large() {
	for _, length := range []int{1000, 100_000, 400_000, 1_000_000} {
		s.step("fail-text", func() (string, error) {
			return s.beside(func() (string, error) {
				_, err := s.doubled(metadata.Pairs("fail-text", strconv.Itoa(length)))
				failed := status.Convert(err)
				if failed.Code() != codes.FailedPrecondition || failed.Message() != strings.Repeat("x", length) {
					return "", fmt.Errorf("%d bytes of text arrived as %s with %d", length, failed.Code(), len(failed.Message()))
				}
				return "", nil
			})
		})
		s.step("fail-details", func() (string, error) {
			return s.beside(func() (string, error) {
				_, err := s.doubled(metadata.Pairs("fail-details", strconv.Itoa(length)))
				failed := status.Convert(err)
				if failed.Code() != codes.FailedPrecondition || len(failed.Proto().GetDetails()) != 1 {
					return "", fmt.Errorf("%d bytes of details arrived as %v", length, failed.Code())
				}
				return "", nil
			})
		})
		s.step("metadata", func() (string, error) {
			return s.beside(func() (string, error) {
				much := metadata.Pairs("much", strings.Repeat("m", length), "reply-head", strconv.Itoa(length))
				head, err := s.doubled(much)
				if err != nil {
					return "", err
				}
				heard, large := strings.Join(head.Get("heard"), ""), strings.Join(head.Get("large"), "")
				if heard != strconv.Itoa(length) || len(large) != length {
					return "", fmt.Errorf("of %d bytes %s arrived there and %d here", length, heard, len(large))
				}
				return "", nil
			})
		})
	}
}

// compressed sends and asks for messages that are compressed with gzip.
func (s *session) compressed() {
	for _, asked := range []metadata.MD{{}, metadata.Pairs("reply-gzip", "1")} {
		s.step("gzip", func() (string, error) {
			_, err := s.doubled(asked, grpc.UseCompressor("gzip"))
			return "", err
		})
		s.step("gzip-stream", func() (string, error) {
			ctx, cancel := s.context()
			defer cancel()
			ctx = metadata.NewOutgoingContext(ctx, asked)
			return "", s.echoCompressed(ctx)
		})
	}
}

func (s *session) echoCompressed(ctx context.Context) error {
	stream, err := s.test().Stream(ctx, grpc.UseCompressor("gzip"))
	if err != nil {
		return err
	}
	for number := range int32(100) {
		if err := stream.Send(&grpctestpb.TestRequest{Input: number}); err != nil {
			return err
		}
		reply, err := stream.Recv()
		if err != nil {
			return err
		}
		if reply.GetOutput() != number {
			return fmt.Errorf("%d came back as %d", number, reply.GetOutput())
		}
	}
	return stream.CloseSend()
}

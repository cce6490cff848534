// A backend, whole: opens a duel, issues a ticket, pushes an event, repeats the push, watches the duel, closes it.
//
//	buf generate && go run . [DUEL]
//
// CONTROL is the hub's control plane, 127.0.0.1:50051 by default, and CONTROL_TOKEN its token if it wants one. The ticket that is
// printed opens ws://127.0.0.1:8090/ws?ticket=<ticket>, once.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "duelhub/gen/duelhub/v1"
)

// bearer puts the token into the metadata of each call.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

// RequireTransportSecurity is false because the hub is on this machine. Beyond it, use TLS.
func (bearer) RequireTransportSecurity() bool { return false }

// dial opens the one channel that a backend needs.
func dial() (*grpc.ClientConn, error) {
	// Which calls are repeated, and when: examples/README.md says why these.
	config, err := os.ReadFile("../service-config.json")
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(string(config)),
		// A hub that restarts is back within a second. By default the wait between two connections grows to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		// A watch may be silent for long, and would not notice that the hub's machine is gone.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second}),
	}
	if token := os.Getenv("CONTROL_TOKEN"); token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	target := os.Getenv("CONTROL")
	if target == "" {
		target = "127.0.0.1:50051"
	}
	return grpc.NewClient(target, options...)
}

func play(ctx context.Context, hub pb.ControlServiceClient, duel uint64) error {
	players := []*pb.Participant{{UserId: 1001}, {UserId: 1002}}
	opened, err := hub.OpenDuel(ctx, &pb.OpenDuelRequest{DuelId: duel, Participants: players})
	if err != nil {
		return err
	}
	fmt.Printf("duel %d is open, created just now: %t\n", duel, opened.Created)

	// The ticket admits this user to this duel, once.
	issued, err := hub.IssueTicket(ctx, &pb.IssueTicketRequest{DuelId: duel, UserId: 1001})
	if err != nil {
		return err
	}
	fmt.Println("ticket of user 1001:", issued.Ticket)

	// With an idempotency key a push may be repeated after any failure, until there is an answer: it takes effect once.
	push := &pb.PushEventRequest{
		DuelId: duel, Type: "question", PayloadJson: `{"text":"Which planet is the third?"}`, IdempotencyKey: "question-1",
	}
	for range 2 {
		pushed, err := hub.PushEvent(ctx, push)
		if err != nil {
			return err
		}
		fmt.Printf("event %d is stored, a duplicate: %t\n", pushed.Position.Seq, pushed.Duplicate)
	}

	if err := watch(ctx, hub, duel); err != nil {
		return err
	}

	// A call that fails has a code and a reason to decide by, and a text for people.
	_, err = hub.PushEvent(ctx, &pb.PushEventRequest{DuelId: duel, IdempotencyKey: "question-2"})
	failed := status.Convert(err)
	fmt.Printf("refused: %s, %s\n", failed.Code(), failed.Message())
	for _, detail := range failed.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			fmt.Println("why:", info.Reason, info.Metadata)
		}
	}
	return nil
}

// watch closes the duel once it has seen its state, and returns when it has seen the end. A watch begins with the present state,
// ends that with Synced, and then tells what changes.
func watch(ctx context.Context, hub pb.ControlServiceClient, duel uint64) error {
	ctx, cancel := context.WithCancel(ctx) // Ends the stream.
	defer cancel()
	changes, err := hub.WatchDuels(ctx, &pb.WatchDuelsRequest{DuelIds: []uint64{duel}})
	if err != nil {
		return err
	}
	for {
		event, err := changes.Recv()
		if err != nil {
			return err
		}
		switch event.Change.(type) {
		case *pb.WatchDuelsResponse_Opened:
			fmt.Println("watched: opened")
		case *pb.WatchDuelsResponse_Synced:
			fmt.Println("watched: synced")
			end := &pb.CloseDuelRequest{DuelId: duel, Status: pb.DuelStatus_DUEL_STATUS_FINISHED}
			if _, err := hub.CloseDuel(ctx, end); err != nil {
				return err
			}
		case *pb.WatchDuelsResponse_Closed:
			fmt.Println("watched: closed")
			return nil
		}
	}
}

func main() {
	channel, err := dial()
	if err != nil {
		log.Fatal(err)
	}
	defer channel.Close()

	// A duel's id is the backend's own, and is never used again: here the time, which will do for trying out.
	duel := uint64(time.Now().UnixMilli())
	if len(os.Args) > 1 {
		if duel, err = strconv.ParseUint(os.Args[1], 10, 64); err != nil {
			log.Fatal(err)
		}
	}
	if err := play(context.Background(), pb.NewControlServiceClient(channel), duel); err != nil {
		log.Fatal(err)
	}
}

// Command session speaks to mapd from the contract alone: session SOCKET MAP. It writes three elements and reads four, in
// stamped messages. When a stream ends before its message is answered, the session is resumed and the message sent again:
// the daemon executes nothing twice, and what it cannot tell any more it calls OUTCOME_UNKNOWN.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"time"

	mapd "github.com/bpf-mapd/mapd/gen/mapd_api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type session struct {
	mapd.ElementServiceClient
	stream   mapd.ElementService_SessionClient
	opened   *mapd.SessionOpened
	sequence uint64 // of slot 0; one message at a time needs no other
	leaving  bool   // the daemon said goodbye: this stream takes nothing new
}

// open begins the session, or resumes it: handles and answers outlive their stream by SessionOpened.resume_within.
func (s *session) open(ctx context.Context) {
	ask := &mapd.SessionOpen{Session: s.opened.GetSession(), Epoch: s.opened.GetEpoch()}
	for {
		stream, err := s.Session(ctx, grpc.WaitForReady(true))
		check(err)
		_ = stream.Send(&mapd.SessionRequest{Message: &mapd.SessionRequest_Open{Open: ask}}) // Recv has the reason
		response, err := stream.Recv()
		if status.Code(err) == codes.Unavailable {
			continue
		}
		check(err)
		s.stream, s.opened, s.leaving = stream, response.GetOpened(), false
		if s.opened == nil || ask.Session != "" && !s.opened.Resumed {
			log.Fatalf("the session is gone, and what became of message %d is unknown: %v", s.sequence, response)
		}
		return
	}
}

// apply has a group of operations executed, once.
func (s *session) apply(ctx context.Context, group *mapd.OpGroup) *mapd.GroupResult {
	s.sequence++
	apply := &mapd.ApplyRequest{Groups: []*mapd.OpGroup{group}, Stamp: &mapd.Stamp{
		Session: s.opened.Session, Epoch: s.opened.Epoch, Sequence: s.sequence, Acknowledged: s.sequence - 1}}
	for ; ; s.open(ctx) { // the same message under the same stamp, as often as it takes
		if s.leaving || s.stream.Send(&mapd.SessionRequest{Message: &mapd.SessionRequest_Apply{Apply: apply}}) != nil {
			continue
		}
		for response, err := s.stream.Recv(); err == nil; response, err = s.stream.Recv() {
			s.leaving = s.leaving || response.GetGoodbye() != nil // what is under way is answered nevertheless
			// After a resumption an answer may come twice: that of an earlier message is none of ours.
			if reply := response.GetApply(); reply.GetStamp().GetSequence() == s.sequence {
				refused(reply.Error)
				refused(reply.Results[0].Error)
				return reply.Results[0]
			}
		}
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	connection, err := grpc.DialContext(ctx, "unix:"+os.Args[1], grpc.WithInsecure())
	check(err)
	s := &session{ElementServiceClient: mapd.NewElementServiceClient(connection)}
	s.open(ctx)
	name := &mapd.MapRef{Ref: &mapd.MapRef_Name{Name: os.Args[2]}}
	opened, err := mapd.NewMapServiceClient(connection).OpenMap(ctx, &mapd.OpenMapRequest{Map: name, Session: s.opened.Session})
	check(err)
	fmt.Println("opened", opened.Info.Name, opened.Info.Type)
	handle := &mapd.MapRef{Ref: &mapd.MapRef_Handle{Handle: opened.Handle}}
	s.apply(ctx, &mapd.OpGroup{Map: handle, Count: 3, Ops: []byte{byte(mapd.Op_OP_UPDATE)}, Keys: column(1, 2, 3), Values: column(10, 20, 30)})
	found := s.apply(ctx, &mapd.OpGroup{Map: handle, Count: 4, Ops: []byte{byte(mapd.Op_OP_LOOKUP)}, Keys: column(1, 2, 3, 4)})
	for at, reason := range found.Statuses { // a byte for each element, 0 for done
		fmt.Println("key", at+1, mapd.Reason(reason), binary.LittleEndian.Uint64(found.Values[8*at:]))
	}
}

// column packs numbers as a little-endian kernel has them in keys and values of 8 bytes.
func column(numbers ...uint64) (packed []byte) {
	for _, number := range numbers {
		packed = binary.LittleEndian.AppendUint64(packed, number)
	}
	return packed
}

func refused(why *mapd.Error) {
	if why != nil { // OUTCOME_UNKNOWN is one of the reasons
		log.Fatalf("%v: %s", why.Reason, why.Message)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

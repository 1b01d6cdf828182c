// Load for etcd, with etcd's own client: what `aspen bench kv` does to Aspen, done to etcd by a program in its own language.
//
// One run is one kind of work by so many clients for so many seconds; it prints one line of JSON. Clients are goroutines
// in closed loops. They share connections as those of etcd's own benchmark tool do: client i uses connection i modulo
// their number, connection j goes to endpoint j modulo theirs.
//
//	put    a 256-byte value to a random key of the key space
//	get    a linearizable get of a random key
//	sget   a serializable one
//	range  a linearizable range of 100 keys
//	fill   each key of the key space once; what get, sget and range need
//	watch  so many clients that each watch one key, which -window loops put 256 bytes to; counts the events that arrived,
//	       and how long each took from before its put
//	keep   so many clients that each keep a lease of their own alive, asking for it alone and waiting for the answer
//	beat   -leases leases of one client, kept alive over and over on its one stream: as many requests under way as leases
//	lock   so many clients that want one lock, each with a session of its own: from before it is given up to where the
//	       next one has it
//	gap    puts through every endpoint at once, each with a short deadline; tells the longest time between two that were
//	       accepted, to be run while somebody kills the leader
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/etcdserver/etcdserverpb"
	"go.uber.org/zap"
	"google.golang.org/grpc/grpclog"
)

const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 10 * time.Second
	gapTimeout     = 200 * time.Millisecond
	gapPause       = 5 * time.Millisecond
	rangeLength    = 100
	leaseTTL       = 60  // seconds
	txnLength      = 100 // of fill; at most 128 are allowed
)

var (
	endpoints = flag.String("endpoints", "127.0.0.1:2379", "comma-separated")
	work      = flag.String("work", "put", "put, get, sget, range, watch, keep, beat, lock, fill or gap")
	clients   = flag.Int("clients", 100, "closed loops at once")
	conns     = flag.Int("conns", 100, "connections; never more than clients")
	seconds   = flag.Float64("seconds", 5, "how long it is measured")
	warmup    = flag.Float64("warmup", 1, "seconds before that, which do not count")
	window    = flag.Int("window", 8, "puts under way of watch")
	leases    = flag.Int("leases", 1000, "of beat")
	keySpace  = flag.Int("keys", 10000, "different keys")
	valueSize = flag.Int("value-bytes", 256, "size of a value")
)

type report struct {
	Work       string  `json:"work"`
	Clients    int     `json:"clients"`
	Conns      int     `json:"conns"`
	Operations int     `json:"operations"`
	Failures   int     `json:"failures"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"per_s"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
	GapSeconds float64 `json:"gap_s"`
}

func main() {
	flag.Parse()
	if *clients < 1 || *conns < 1 || *keySpace < 2*rangeLength || *seconds <= 0 {
		fail(fmt.Errorf("-clients and -conns must be at least 1, -keys at least %d, -seconds above 0", 2*rangeLength))
	}
	// A member that is killed is what some runs are about; the transport need not tell.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(devNull(), devNull(), devNull()))
	var result report
	switch *work {
	case "put", "get", "sget", "range", "keep":
		result = measure()
	case "beat":
		result = beat()
	case "lock":
		result = lock()
	case "watch":
		result = watch()
	case "fill":
		result = fill()
	case "gap":
		result = gap()
	default:
		fail(fmt.Errorf("-work %s is none of put, get, sget, range, watch, keep, beat, lock, fill, gap", *work))
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func devNull() *os.File {
	file, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		fail(err)
	}
	return file
}

func dial(endpoint string) *clientv3.Client {
	quiet := zap.NewProductionConfig()
	quiet.Level = zap.NewAtomicLevelAt(zap.FatalLevel)
	config := clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: dialTimeout, LogConfig: &quiet}
	client, err := clientv3.New(config)
	if err != nil {
		fail(fmt.Errorf("cannot reach %s: %w", endpoint, err))
	}
	return client
}

func connections(count int) []*clientv3.Client {
	all := strings.Split(*endpoints, ",")
	made := make([]*clientv3.Client, count)
	for i := range made {
		made[i] = dial(all[i%len(all)])
	}
	return made
}

func key(number int) string { return fmt.Sprintf("bench/%010d", number) }

func value(random *rand.Rand) string {
	bytes := make([]byte, *valueSize)
	random.Read(bytes)
	return string(bytes)
}

func once(ctx context.Context, client *clientv3.Client, random *rand.Rand, lease clientv3.LeaseID) error {
	var err error
	switch *work {
	case "keep":
		_, err = client.KeepAliveOnce(ctx, lease)
	case "put":
		_, err = client.Put(ctx, key(random.Intn(*keySpace)), value(random))
	case "get":
		err = answered(1)(client.Get(ctx, key(random.Intn(*keySpace))))
	case "sget":
		err = answered(1)(client.Get(ctx, key(random.Intn(*keySpace)), clientv3.WithSerializable()))
	case "range":
		first := random.Intn(*keySpace - rangeLength)
		err = answered(rangeLength)(client.Get(ctx, key(first), clientv3.WithRange(key(first+rangeLength))))
	}
	return err
}

// An answer without what was asked for would be fast, and no answer.
func answered(want int) func(*clientv3.GetResponse, error) error {
	return func(response *clientv3.GetResponse, err error) error {
		if err == nil && len(response.Kvs) != want {
			return fmt.Errorf("%d keys came instead of %d; run -work fill first", len(response.Kvs), want)
		}
		return err
	}
}

func measure() report {
	count := *conns
	if count > *clients {
		count = *clients
	}
	pool := connections(count)
	began := time.Now().Add(time.Duration(*warmup * float64(time.Second)))
	end := began.Add(time.Duration(*seconds * float64(time.Second)))
	latencies := make([][]time.Duration, *clients)
	failures := make([]int, *clients)
	reasons := make([]error, *clients)
	var group sync.WaitGroup
	for i := 0; i < *clients; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			random := rand.New(rand.NewSource(int64(i) + 1))
			client := pool[i%len(pool)]
			lease := clientv3.NoLease
			if *work == "keep" {
				lease = grant(client)
			}
			for {
				asked := time.Now()
				if !asked.Before(end) {
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
				err := once(ctx, client, random, lease)
				cancel()
				took := time.Since(asked)
				if err != nil {
					failures[i]++
					reasons[i] = err
				} else if done := asked.Add(took); !done.Before(began) && done.Before(end) {
					latencies[i] = append(latencies[i], took)
				}
			}
		}(i)
	}
	group.Wait()
	var all []time.Duration
	failed := 0
	for i := range latencies {
		all = append(all, latencies[i]...)
		failed += failures[i]
	}
	for _, reason := range reasons {
		if reason != nil {
			fmt.Fprintf(os.Stderr, "%d requests failed; one of them: %v\n", failed, reason)
			break
		}
	}
	result := summary(all, *seconds)
	result.Conns, result.Failures = count, failed
	return result
}

func grant(client *clientv3.Client) clientv3.LeaseID {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	granted, err := client.Grant(ctx, leaseTTL)
	if err != nil {
		fail(err)
	}
	return granted.ID
}

// The stream is that of the protocol itself: the client library sends what it keeps alive twice a second at most.
func beat() report {
	client := connections(1)[0]
	ids := make(chan int64, *leases)
	for i := 0; i < *leases; i++ {
		ids <- int64(grant(client))
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	stream, err := etcdserverpb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		fail(err)
	}
	go func() {
		for id := range ids {
			if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: id}); err != nil {
				return
			}
		}
	}()
	began := time.Now().Add(time.Duration(*warmup * float64(time.Second)))
	end := began.Add(time.Duration(*seconds * float64(time.Second)))
	count := 0
	for now := time.Now(); now.Before(end); now = time.Now() {
		answer, err := stream.Recv()
		if err != nil {
			fail(err)
		}
		if answer.TTL <= 0 {
			fail(fmt.Errorf("lease %x is gone", answer.ID))
		}
		if !now.Before(began) {
			count++
		}
		ids <- answer.ID
	}
	return report{Work: *work, Clients: 1, Conns: 1, Operations: count, Seconds: *seconds, PerSecond: float64(count) / *seconds}
}

// Who has the lock notes when it begins to give it up; the next one looks at that as soon as it has it.
func lock() report {
	count := *conns
	if count > *clients {
		count = *clients
	}
	pool := connections(count)
	ctx := context.Background()
	began := time.Now().Add(time.Duration(*warmup * float64(time.Second)))
	end := began.Add(time.Duration(*seconds * float64(time.Second)))
	var all []time.Duration
	var givenUp time.Time
	var last int
	var group sync.WaitGroup
	for i := 0; i < *clients; i++ {
		session, err := concurrency.NewSession(pool[i%len(pool)], concurrency.WithTTL(leaseTTL))
		if err != nil {
			fail(err)
		}
		mutex := concurrency.NewMutex(session, "bench/lock")
		group.Add(1)
		go func(i int) {
			defer group.Done()
			for time.Now().Before(end) {
				if err := mutex.Lock(ctx); err != nil {
					fail(err)
				}
				now := time.Now()
				if !givenUp.IsZero() && last != i && now.After(began) && now.Before(end) {
					all = append(all, now.Sub(givenUp))
				}
				givenUp, last = time.Now(), i
				if err := mutex.Unlock(ctx); err != nil {
					fail(err)
				}
			}
		}(i)
	}
	group.Wait()
	result := summary(all, *seconds)
	result.Conns = count
	return result
}

func summary(all []time.Duration, took float64) report {
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	result := report{Work: *work, Clients: *clients, Operations: len(all), Seconds: took}
	if len(all) > 0 {
		milliseconds := func(at int) float64 { return float64(all[at].Nanoseconds()) / 1e6 }
		result.PerSecond = float64(len(all)) / took
		result.P50 = milliseconds(len(all) / 2)
		result.P99 = milliseconds(len(all) * 99 / 100)
		result.Max = milliseconds(len(all) - 1)
	}
	return result
}

func fill() report {
	client := connections(1)[0]
	random := rand.New(rand.NewSource(1))
	began := time.Now()
	for first := 0; first < *keySpace; first += txnLength {
		var puts []clientv3.Op
		for number := first; number < first+txnLength && number < *keySpace; number++ {
			puts = append(puts, clientv3.OpPut(key(number), value(random)))
		}
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		_, err := client.Txn(ctx).Then(puts...).Commit()
		cancel()
		if err != nil {
			fail(err)
		}
	}
	took := time.Since(began).Seconds()
	return report{Work: *work, Clients: 1, Conns: 1, Operations: *keySpace, Seconds: took, PerSecond: float64(*keySpace) / took}
}

// What is put begins with when that began, so that a watcher can tell how long it took.
func watch() report {
	count := *conns
	if count > *clients {
		count = *clients
	}
	pool := connections(count)
	watched := "bench/watched"
	ctx, stop := context.WithCancel(context.Background())
	delays := make([][]time.Duration, *clients)
	began := time.Now()
	var created, done sync.WaitGroup
	written := make(chan struct{})
	total := 0 // Once written is closed: how many events each is to see.
	created.Add(*clients)
	done.Add(*clients)
	puts := make([]int, *window)
	for i := 0; i < *clients; i++ {
		go func(i int) {
			defer done.Done()
			events := pool[i%len(pool)].Watch(ctx, watched, clientv3.WithCreatedNotify())
			isCreated := false
			due, last := -1, written
			for due < 0 || len(delays[i]) < due {
				select {
				case answer, open := <-events:
					if !open || answer.Err() != nil {
						fail(fmt.Errorf("a watch ended: %v", answer.Err()))
					}
					if answer.Created && !isCreated {
						isCreated = true
						created.Done()
					}
					now := time.Since(began)
					for _, event := range answer.Events {
						delays[i] = append(delays[i], now-time.Duration(binary.BigEndian.Uint64(event.Kv.Value)))
					}
				case <-last:
					due, last = total, nil
				}
			}
		}(i)
	}
	created.Wait()
	start := time.Now()
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	var writers sync.WaitGroup
	for i := 0; i < *window; i++ {
		writers.Add(1)
		go func(i int) {
			defer writers.Done()
			bytes := make([]byte, *valueSize)
			for time.Now().Before(end) {
				binary.BigEndian.PutUint64(bytes, uint64(time.Since(began)))
				if _, err := pool[0].Put(ctx, watched, string(bytes)); err != nil {
					fail(err)
				}
				puts[i]++
			}
		}(i)
	}
	writers.Wait()
	for _, count := range puts {
		total += count
	}
	close(written)
	done.Wait()
	took := time.Since(start).Seconds()
	stop()
	var all []time.Duration
	for i := range delays {
		all = append(all, delays[i]...)
	}
	result := summary(all, took)
	result.Conns = count
	return result
}

// One loop an endpoint: the first survivor that accepts a write ends the gap, whichever it is.
func gap() report {
	all := strings.Split(*endpoints, ",")
	end := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	var mutex sync.Mutex
	var accepted []time.Time
	failed := 0
	var group sync.WaitGroup
	for i, endpoint := range all {
		group.Add(1)
		go func(i int, client *clientv3.Client) {
			defer group.Done()
			random := rand.New(rand.NewSource(int64(i) + 1))
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(context.Background(), gapTimeout)
				_, err := client.Put(ctx, key(random.Intn(*keySpace)), value(random))
				cancel()
				mutex.Lock()
				if err == nil {
					accepted = append(accepted, time.Now())
				} else {
					failed++
				}
				mutex.Unlock()
				time.Sleep(gapPause)
			}
		}(i, dial(endpoint))
	}
	group.Wait()
	result := report{Work: *work, Clients: len(all), Conns: len(all), Operations: len(accepted), Failures: failed, Seconds: *seconds}
	for i := 1; i < len(accepted); i++ {
		if between := accepted[i].Sub(accepted[i-1]).Seconds(); between > result.GapSeconds {
			result.GapSeconds = between
		}
	}
	return result
}

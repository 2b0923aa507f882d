// hello-client makes GET requests at the same time through Go's default transport, reads the bodies, and then does
// nothing for a while. The transport keeps two idle connections for a host and closes every other one.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"sync"
	"time"
)

func main() {
	address := flag.String("address", "127.0.0.1:8090", "address of the server")
	count := flag.Int("count", 3, "number of requests")
	idle := flag.Duration("idle", 10*time.Second, "time to stay after the last response")
	flag.Parse()

	// Nobody reads a body before everybody has a response, so that no connection is free for a second request.
	var answered, done sync.WaitGroup
	answered.Add(*count)
	done.Add(*count)
	for i := 0; i < *count; i++ {
		go func() {
			defer done.Done()
			response, err := http.Get("http://" + *address + "/hello")
			if err != nil {
				log.Fatal(err)
			}
			answered.Done()
			answered.Wait()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				log.Fatal(err)
			}
			response.Body.Close()
			fmt.Printf("%d %d bytes\n", response.StatusCode, len(body))
		}()
	}
	done.Wait()
	fmt.Println("idle")
	time.Sleep(*idle)
}

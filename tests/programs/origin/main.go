// origin is a net/http server that writes a line for each exchange.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"
)

// counting counts the content that a handler writes.
type counting struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (c *counting) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counting) Write(data []byte) (int, error) {
	written, err := c.ResponseWriter.Write(data)
	c.bytes += written
	return written, err
}

func (c *counting) Flush() {
	c.ResponseWriter.(http.Flusher).Flush()
}

const large = 8 << 20

func main() {
	address := flag.String("address", "127.0.0.1:8091", "address to listen on")
	flag.Parse()

	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "hello from go\n")
	})
	mux.HandleFunc("/close", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "bye\n")
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		// In chunks, as nothing tells the length before.
		w.WriteHeader(http.StatusAccepted)
		content, _ := io.ReadAll(r.Body)
		for len(content) > 0 {
			length := min(len(content), 3000)
			w.Write(content[:length])
			w.(http.Flusher).Flush()
			content = content[length:]
		}
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(large))
		io.Copy(w, io.LimitReader(zeros{}, large))
	})
	// The client gives up waiting.
	mux.HandleFunc("/never", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
	// The client has given up when the answer comes.
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		time.Sleep(200 * time.Millisecond)
		io.WriteString(w, "too late\n")
	})
	// The client gives up in the middle of the body, and the server goes on with it.
	mux.HandleFunc("/stall", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", fmt.Sprint(large))
		io.Copy(w, io.LimitReader(zeros{}, 1000))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		io.Copy(w, io.LimitReader(zeros{}, large-1000))
	})

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &reading{ReadCloser: r.Body}
		r.Body = body
		answer := &counting{ResponseWriter: w, status: http.StatusOK}
		_, port, _ := net.SplitHostPort(r.RemoteAddr)
		defer func() {
			status, length := fmt.Sprint(answer.status), fmt.Sprint(answer.bytes)
			switch {
			case r.Method == http.MethodHead:
				// What is written is counted, and not sent.
				length = "0"
			case r.URL.Path == "/never":
				status, length = "-", "-"
			case r.URL.Path == "/large" && r.Header.Get("Part") != "", r.URL.Path == "/stall":
				// What was written need not have left.
				length = "-"
			}
			fmt.Println(port, r.Method, r.RequestURI, status, body.bytes, length)
		}()
		mux.ServeHTTP(answer, r)
	})
	// Handlers that are cut off are wanted here.
	silent := log.New(io.Discard, "", 0)
	server := &http.Server{Addr: *address, Handler: handler, ErrorLog: silent}
	log.Fatal(server.ListenAndServe())
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// reading counts the content that a handler reads.
type reading struct {
	io.ReadCloser
	bytes int
}

func (r *reading) Read(data []byte) (int, error) {
	read, err := r.ReadCloser.Read(data)
	r.bytes += read
	return read, err
}

type zeros struct{}

func (zeros) Read(data []byte) (int, error) {
	copy(data, strings.Repeat("0", len(data)))
	return len(data), nil
}

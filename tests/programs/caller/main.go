// caller makes requests through net/http, one after the other, and writes a line for each exchange.
//
// Arguments: requests as METHOD:TARGET:BODY:WHAT. BODY is empty, a size, or a size with a `c` behind for a body in
// chunks. WHAT is empty for one that reads the whole response, `part` for one that closes the body after its first
// 1000 bytes, `unread` for one that closes it at once, `timeout` for one that gives up after a short time.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"
)

func main() {
	address := flag.String("address", "127.0.0.1:8091", "address of the server")
	timeout := flag.Duration("timeout", time.Second, "how long a request that gives up waits")
	flag.Parse()
	for _, request := range flag.Args() {
		parts := strings.Split(request, ":")
		method, target, size, what := parts[0], parts[1], parts[2], parts[3]
		limit := time.Minute
		if what == "timeout" {
			limit = *timeout
		}
		call(*address, method, target, size, what, limit)
	}
	http.DefaultClient.CloseIdleConnections()
}

func call(address, method, target, size, what string, limit time.Duration) {
	port := ""
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		_, port, _ = net.SplitHostPort(got.Conn.LocalAddr().String())
	}}
	ctx, cancel := context.WithTimeout(httptrace.WithClientTrace(context.Background(), trace), limit)
	defer cancel()
	sent := 0
	var body io.Reader
	if size != "" {
		fmt.Sscanf(size, "%d", &sent)
		content := strings.NewReader(strings.Repeat("x", sent))
		body = content
		if strings.HasSuffix(size, "c") {
			// Of this reader net/http does not know the length.
			body = io.MultiReader(content)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+target, body)
	if err != nil {
		log.Fatal(err)
	}
	if what != "" {
		request.Header.Set("Part", what)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if what != "timeout" {
			log.Fatal(err)
		}
		fmt.Println(port, method, target, "-", sent, "-")
		return
	}
	read := "-"
	switch what {
	case "unread":
	case "part":
		if _, err := io.CopyN(io.Discard, response.Body, 1000); err != nil {
			log.Fatal(err)
		}
	default:
		length, err := io.Copy(io.Discard, response.Body)
		if (err != nil) != (what == "timeout") {
			log.Fatal(err)
		}
		if err == nil {
			read = fmt.Sprint(length)
		}
	}
	response.Body.Close()
	fmt.Println(port, method, target, response.StatusCode, sent, read)
}

// A client in Go. It prints each answer, or each TXT record, on a line.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: client tcp|udp|packet|lookup ADDRESS OTHER"))
	}
	switch kind, address, other := os.Args[1], os.Args[2], os.Args[3]; kind {
	case "tcp":
		dial("tcp", address)
	case "udp":
		dial("udp", address)
	case "packet":
		packet(address, other)
	case "lookup":
		lookup(address, other)
	}
}

// If a host name has addresses of both families, Go tries one family first (happy eyeballs). It tries the other family after an
// error, or after FallbackDelay, which is longer than the time limit here.
func dial(network, address string) {
	connection, err := (&net.Dialer{Timeout: 30 * time.Second, FallbackDelay: time.Hour}).Dial(network, address)
	fail(err)
	defer connection.Close()
	_, err = connection.Write([]byte("who\n"))
	fail(err)
	answer, err := bufio.NewReader(connection).ReadString('\n')
	fail(err)
	fmt.Printf("%v %s", connection.RemoteAddr(), answer)
}

// Sends from one socket to all addresses in turn, and prints the source of each answer.
func packet(addresses ...string) {
	connection, err := net.ListenPacket("udp", ":0")
	fail(err)
	fail(connection.SetDeadline(time.Now().Add(5 * time.Second)))
	for range 3 {
		for _, text := range addresses {
			address, err := net.ResolveUDPAddr("udp", text)
			fail(err)
			_, err = connection.WriteTo([]byte("who\n"), address)
			fail(err)
			buffer := make([]byte, 512)
			length, from, err := connection.ReadFrom(buffer)
			fail(err)
			fmt.Printf("%v %s", from, buffer[:length])
		}
	}
}

func lookup(name, server string) {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	records, err := resolver.LookupTXT(context.Background(), name)
	fail(err)
	for _, record := range records {
		fmt.Println(record)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

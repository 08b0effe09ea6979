// Sends standard input by Go's net/smtp: HOST PORT CA USER PASSWORD FROM TO implicit|starttls.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/smtp"
	"os"
)

func main() {
	host, port, from, to := os.Args[1], os.Args[2], os.Args[6], os.Args[7]
	pem, err := os.ReadFile(os.Args[3])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{ServerName: host, RootCAs: roots}
	var client *smtp.Client
	if os.Args[8] == "implicit" {
		connection, err := tls.Dial("tcp", host+":"+port, config)
		check(err)
		client, err = smtp.NewClient(connection, host)
		check(err)
	} else {
		client, err = smtp.Dial(host + ":" + port)
		check(err)
		check(client.StartTLS(config))
	}
	check(client.Auth(smtp.PlainAuth("", os.Args[4], os.Args[5], host)))
	check(client.Mail(from))
	check(client.Rcpt(to))
	writer, err := client.Data()
	check(err)
	_, err = io.Copy(writer, os.Stdin)
	check(err)
	check(writer.Close())
	check(client.Quit())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

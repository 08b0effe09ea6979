// Sends a message by go-mail: HOST PORT CA USER PASSWORD FROM TO implicit|starttls MECHANISM TLS-VERSION. An empty version is Go's own choice.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"os"
	"strconv"

	"github.com/wneessen/go-mail"
)

func main() {
	port, err := strconv.Atoi(os.Args[2])
	check(err)
	pem, err := os.ReadFile(os.Args[3])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{ServerName: os.Args[1], RootCAs: roots, MinVersion: tls.VersionTLS12}
	if os.Args[10] == "1.2" {
		config.MaxVersion = tls.VersionTLS12
	}
	options := []mail.Option{
		mail.WithPort(port), mail.WithTLSConfig(config), mail.WithTLSPolicy(mail.TLSMandatory),
		mail.WithSMTPAuth(mail.SMTPAuthType(os.Args[9])), mail.WithUsername(os.Args[4]), mail.WithPassword(os.Args[5]),
		mail.WithDSNMailReturnType(mail.DSNMailReturnHeadersOnly),
		mail.WithDSNRcptNotifyType(mail.DSNRcptNotifySuccess, mail.DSNRcptNotifyFailure, mail.DSNRcptNotifyDelay),
	}
	if os.Args[8] == "implicit" {
		options = append(options, mail.WithSSL())
	}
	client, err := mail.NewClient(os.Args[1], options...)
	check(err)
	message := mail.NewMsg()
	check(message.From(os.Args[6]))
	check(message.To(os.Args[7]))
	message.Subject("Grüße")
	message.SetBodyString(mail.TypeTextPlain, "héllo\n.dot\n")
	check(client.DialAndSend(message))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

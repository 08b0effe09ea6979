// Sends one message by Jakarta Mail: HOST PORT USER PASSWORD FROM TO implicit|starttls MECHANISM ENVID. The JVM's trust store is set by the caller.
import jakarta.mail.Message;
import jakarta.mail.Session;
import jakarta.mail.Transport;
import jakarta.mail.internet.InternetAddress;
import java.util.Properties;
import org.eclipse.angus.mail.smtp.SMTPMessage;

public class Send {
    public static void main(String[] args) throws Exception {
        boolean implicit = args[6].equals("implicit");
        String protocol = implicit ? "smtps" : "smtp";
        Properties properties = new Properties();
        properties.put("mail." + protocol + ".auth", "true");
        properties.put("mail." + protocol + ".auth.mechanisms", args[7]);
        properties.put("mail." + protocol + ".ssl.checkserveridentity", "true");
        properties.put("mail.smtp.starttls.enable", "true");
        properties.put("mail.smtp.starttls.required", "true");
        SMTPMessage message = new SMTPMessage(Session.getInstance(properties));
        message.setFrom(new InternetAddress(args[4]));
        message.setRecipient(Message.RecipientType.TO, new InternetAddress(args[5]));
        message.setSubject("Grüße");
        message.setText("héllo\n.dot\n", "utf-8");
        message.setReturnOption(SMTPMessage.RETURN_HDRS);
        message.setNotifyOptions(SMTPMessage.NOTIFY_SUCCESS | SMTPMessage.NOTIFY_FAILURE | SMTPMessage.NOTIFY_DELAY);
        message.setMailExtension("ENVID=" + args[8]);
        message.saveChanges();
        try (Transport transport = Session.getInstance(properties).getTransport(protocol)) {
            transport.connect(args[0], Integer.parseInt(args[1]), args[2], args[3]);
            transport.sendMessage(message, message.getAllRecipients());
        }
    }
}

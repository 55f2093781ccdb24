import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Scanner;

/**
 * Runs Kafka's command line tools one after the other in one virtual machine. Each line of standard input is a main
 * class and its arguments, apart by tabs; behind what a tool prints comes a line of dashes. A tool that exits ends all.
 */
public class Tools {
    public static void main(String[] none) throws Exception {
        Scanner lines = new Scanner(System.in, StandardCharsets.UTF_8);
        while (lines.hasNextLine()) {
            String[] words = lines.nextLine().split("\t");
            String[] arguments = Arrays.copyOfRange(words, 1, words.length);
            Class.forName(words[0]).getMethod("main", String[].class).invoke(null, (Object) arguments);
            System.out.println("\n----------");
        }
    }
}
